//! SIGHUP: the keys of the configuration that change while frames flow.

use super::{Controller, node_spec, poll_mode};
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
        self.node = node_spec(&plan.config, mtu);
        self.config = plan.config;
        self.switch.set_poll(poll_mode(self.config.workers.poll));
        self.devices.sync_host_routes(&self.node).map_err(|error| error.to_string())?;
        let pod_mtu = self.pod_mtu();
        let stated: Vec<String> = self
            .ledger
            .effective()
            .ports()
            .filter(|(_, port)| port.mtu.is_some())
            .map(|(_, port)| port.name.to_string())
            .collect();
        self.devices
            .set_mtu(|name| stated.iter().any(|own| own == name), pod_mtu)
            .map_err(|error| error.to_string())?;
        let compiled = self.compile(&self.ledger);
        self.publish(compiled, Vec::new()).map_err(|error| error.to_string())?;
        Ok(plan.changed)
    }
}
