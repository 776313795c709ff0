//! The start: every device opened and published, so that frames flow, and only then looked after.

use podwire_control::model::Port;

use super::{Controller, StartError};
use crate::compile::{HOST_PORT, UPLINK_PORT};
use crate::daemon::devices::{AtStart, DeviceError};

impl Controller {
    pub(super) fn bring_up(&mut self) -> Result<(), StartError> {
        let mut opened = Vec::new();
        if let Some(uplink) = &self.config.uplink {
            let halves = self.devices.open_uplink(uplink, self.config.vxlan, self.node.underlay_mtu)?;
            opened.push((UPLINK_PORT.to_owned(), halves));
        }
        let ports: Vec<Port> = self.ledger.effective().ports().map(|(_, port)| port.clone()).collect();
        let mtu = self.pod_mtu();
        let start = AtStart { config: &self.config, ports: &ports, node: &self.node, mtu };
        for (name, halves) in self.devices.open_at_start(start) {
            match halves {
                Ok(halves) => opened.push((name, halves)),
                Err(error) if name == HOST_PORT => return Err(error.into()),
                Err(error) => self.lose(name, &error),
            }
        }
        let compiled = self.compile(&self.ledger);
        self.publish(compiled, opened)?;
        let start = AtStart { config: &self.config, ports: &ports, node: &self.node, mtu };
        for (name, error) in self.devices.settle(start) {
            if name == HOST_PORT {
                return Err(error.into());
            }
            let id = self.port_id(&name);
            // The interface stays, as it does when it can not be opened.
            drop(self.devices.close(&name));
            self.lose(name, &error);
            let compiled = self.compile(&self.ledger);
            self.publish(compiled, Vec::new())?;
            id.into_iter().for_each(|id| self.detach_port(id));
        }
        Ok(())
    }

    fn lose(&mut self, name: String, error: &DeviceError) {
        tracing::warn!(port = name, %error, "a port of before can not be opened");
        self.closed.insert(name, error.to_string());
    }
}
