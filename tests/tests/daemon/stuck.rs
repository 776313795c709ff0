//! A worker that does not answer: the request stands, and its answer says so.

use podwire_control::model::{Owner, Via};
use podwire_tests::held::Held;

use crate::api::{Api, node, pod, refused, route};

#[test]
fn a_request_that_a_stuck_worker_does_not_take_up_stands_and_says_so() {
    let mut node = node();
    let api = Api::of(&node);
    let _pod = pod(&node, 10);
    let kept = [route("10.9.0.0/16", Via::Blackhole)];
    let state = |owner| api.ask(api.client.change(owner, &kept, &[]));
    let routes = |api: &Api| api.ask(api.client.routes()).unwrap().len();
    let held = Held::new(&node);
    let sentence = refused(state(Owner::Cli));
    for part in ["worker 0 does not answer", "was not taken back", "it is in the store, and in force after the restart"]
    {
        assert!(sentence.contains(part), "{part} in {sentence}");
    }
    assert_eq!(routes(&api), 1);
    assert!(refused(state(Owner::Cli)).contains("worker 0 does not answer"), "still not in force");
    let forgotten = refused(api.ask(api.client.change(Owner::Etcd, &[route("10.8.0.0/16", Via::Blackhole)], &[])));
    assert!(forgotten.contains("state it again after the restart"), "{forgotten}");

    drop(held);
    let answer = state(Owner::Cli).unwrap();
    assert_eq!((answer.changed.len(), answer.unchanged), (0, 1));
    assert_eq!(answer.generation, api.generation());
    node.kill();
    node.start();
    assert_eq!(routes(&Api::of(&node)), 1, "what the store keeps");
}
