//! The same work for many devices, on several threads: most of it is waiting for the kernel.

use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::sys::netns::visit_from_here;

/// Threads at a time.
const THREADS_MAX: usize = 16;

/// Does the work for each, and gives its results in their order.
pub(in crate::daemon) fn together<T: Send, R: Send>(items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let threads = items.len().min(THREADS_MAX);
    let results: Vec<Mutex<Option<R>>> = items.iter().map(|_| Mutex::default()).collect();
    let left = Mutex::new(items.into_iter().zip(&results));
    let each = || {
        loop {
            let next = left.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((item, result)) = next else { return };
            let done = work(item);
            *result.lock().unwrap_or_else(PoisonError::into_inner) = Some(done);
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Without a thread more, this one does the work.
            let _ = thread::Builder::new().name("devices".into()).spawn_scoped(scope, || {
                // Else it takes a thread for each namespace.
                let _ = visit_from_here();
                each();
            });
        }
        each();
    });
    results.into_iter().filter_map(|result| result.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}
