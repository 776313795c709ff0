//! SIGHUP: the keys of the configuration that change while frames flow.

use std::collections::HashSet;

use super::{Controller, ipam, node_spec, poll_mode};
use crate::daemon::config::Config;
use crate::daemon::devices::underlay_mtu;

impl Controller {
    /// Takes over what may change at run time, and says which keys did.
    ///
    /// # Errors
    /// One sentence: which keys need a restart, or what the kernel refused. Then nothing has changed, but for an MTU
    /// that some interface did not take.
    pub fn reload(&mut self, config: Config) -> Result<Vec<&'static str>, String> {
        let plan = self.config.reload_from(config).map_err(|keys| {
            format!("{} can not change while podwired runs: restart it, or put the old values back", keys.join(", "))
        })?;
        let mtu = underlay_mtu(&plan.config).map_err(|error| error.to_string())?;
        let node = node_spec(&plan.config, mtu);
        let (space, _) = ipam::space(&plan.config, &self.cli_ranges);
        let (ipam, useless) = self.ipam.moved_to(&space);
        let synced = self.devices.sync_host_routes(&node).map_err(|error| error.to_string());
        let taken = synced.and_then(|()| self.forget_releases(&useless).map_err(|error| error.to_string()));
        if let Err(error) = taken {
            // The kernel may have taken some of them.
            let _first_error_matters = self.devices.sync_host_routes(&self.node);
            return Err(error);
        }
        (self.node, self.config, self.ipam) = (node, plan.config, ipam);
        for warning in self.range_warnings() {
            tracing::warn!("{warning}");
        }
        self.switch.set_poll(poll_mode(self.config.workers.poll));
        let pod_mtu = self.pod_mtu();
        let stated: HashSet<String> = self
            .ledger
            .effective()
            .ports()
            .filter(|(_, port)| port.mtu.is_some())
            .map(|(_, port)| port.name.to_string())
            .collect();
        let taken = self.devices.set_mtu(|name| stated.contains(name), pod_mtu, mtu);
        let compiled = self.compile(&self.ledger);
        self.publish(compiled, Vec::new()).map_err(|error| error.to_string())?;
        taken.map_err(|error| error.to_string())?;
        Ok(plan.changed)
    }
}
