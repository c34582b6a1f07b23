//! The links between machines, for people: the addresses of stages and gateways, as those that send there find them.
//! Pure.

use schema::record::{AdvertisedAddress, InterfaceKind, LinkReport, LinkState, NetworkInterface, StageRecord};
use serde::Serialize;

use crate::view::ClusterView;

/// One address of a peer on another machine.
#[derive(Debug, Serialize)]
pub struct LinkLine {
    /// The stage or gateway that sends.
    pub from: String,
    /// The stage or gateway that takes.
    pub to: String,
    /// The interface of the machine that takes, by name. `None` if its record does not tell.
    pub interface: Option<String>,
    /// The kind of that interface.
    pub kind: Option<InterfaceKind>,
    /// The endpoint.
    pub address: String,
    /// The round trip, in microseconds, as the sender measured it.
    pub rtt_us: Option<u32>,
    /// The throughput in Mbit/s, as the sender measured it.
    pub measured_megabits_per_second: Option<u32>,
    /// The speed of the interface in Mbit/s, if the system of the machine that takes tells it.
    pub megabits_per_second: Option<u32>,
    /// Bytes of the interface's largest packets, if that system tells it.
    pub mtu: Option<u32>,
    /// The use of the address.
    pub state: LinkState,
}

/// The process that takes frames at an endpoint.
struct Peer<'a> {
    name: String,
    endpoint: &'a str,
    interface: Option<&'a NetworkInterface>,
    addresses: &'a [AdvertisedAddress],
}

/// The links between machines, by sender.
pub fn links(view: &ClusterView) -> Vec<LinkLine> {
    reports(view).map(|(from, link)| line(view, from, link)).collect()
}

/// The reports of gateways and stages, each with the name of its sender.
fn reports(view: &ClusterView) -> impl Iterator<Item = (String, &LinkReport)> {
    let gateways = view.gateway_links.iter().map(|(slot, links)| (format!("gateway {slot}"), links));
    let stages = view.stages.iter().map(|(name, stage)| (name.to_string(), &stage.value.load.links));
    gateways.chain(stages).flat_map(|(from, links)| links.iter().map(move |link| (from.clone(), link)))
}

/// The interface over which frames come to `stage`: that of the address to which another one sends, or of its endpoint.
pub fn interface_in_use<'a>(view: &'a ClusterView, stage: &'a StageRecord) -> Option<&'a NetworkInterface> {
    let is_used = |link: &&LinkReport| link.to == stage.endpoint && link.state == LinkState::Used;
    let used = reports(view).map(|(_, link)| link).find(is_used);
    let address = used.map_or(&stage.endpoint, |link| &link.address);
    Peer::of_stage(String::new(), stage).interface_of(address).or(stage.interface.as_ref())
}

fn line(view: &ClusterView, from: String, link: &LinkReport) -> LinkLine {
    let peer = peer(view, &link.to);
    let interface = peer.as_ref().and_then(|peer| peer.interface_of(&link.address));
    LinkLine {
        from,
        to: peer.as_ref().map_or_else(|| link.to.clone(), |peer| peer.name.clone()),
        interface: interface.map(|interface| interface.name.clone()),
        kind: interface.map(|interface| interface.kind),
        address: link.address.clone(),
        rtt_us: link.rtt_us,
        measured_megabits_per_second: link.megabits_per_second,
        megabits_per_second: interface.and_then(|interface| interface.megabits_per_second),
        mtu: interface.and_then(|interface| interface.mtu),
        state: link.state,
    }
}

/// The stage or gateway whose record names `endpoint`.
fn peer<'a>(view: &'a ClusterView, endpoint: &str) -> Option<Peer<'a>> {
    let stages = view.stages.iter().map(|(name, stage)| Peer::of_stage(name.to_string(), &stage.value));
    let gateways = view.gateways.iter().map(|(slot, gateway)| Peer {
        name: format!("gateway {slot}"),
        endpoint: &gateway.value.endpoint,
        interface: None,
        addresses: &gateway.value.addresses,
    });
    stages.chain(gateways).find(|peer| peer.endpoint == endpoint)
}

// === impl Peer ===

impl<'a> Peer<'a> {
    fn of_stage(name: String, stage: &'a StageRecord) -> Self {
        let (endpoint, interface, addresses) = (&stage.endpoint, stage.interface.as_ref(), &stage.addresses);
        Self { name, endpoint, interface, addresses }
    }

    fn interface_of(&self, address: &str) -> Option<&'a NetworkInterface> {
        let advertised = self.addresses.iter().find(|advertised| advertised.endpoint == address);
        advertised.map(|found| &found.interface).or(self.interface.filter(|_| address == self.endpoint))
    }
}
