//! Machines on a network: namespaces of this machine, each with a virtual cable to one bridge. Tests control the
//! packets that pass. Needs root, `ip`, `tc` and `nft`. If one of them is missing, a test reports that and is skipped.

use std::io::Write;
use std::process::{Command, Stdio};

/// Namespaces with a bridge between them. Dropping it removes them.
pub(crate) struct Network {
    id: u32,
    machines: usize,
}

/// The packets that a machine lets through. Without a rule it lets everything through.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// No packets pass in either direction.
    DropAll,
    /// No packets come in.
    DropIn,
    /// No packets go out.
    DropOut,
    /// Open connections are reset, and new ones soon after they have been made.
    Reset,
    /// One packet in ten is lost, in each direction.
    Loss,
    /// No packets pass to or from this port of another machine.
    DropPort(u16),
    /// Only packets to or from this port of another machine pass.
    OnlyPort(u16),
}

// === impl Network ===

impl Network {
    /// Creates `machines` machines. The error is the reason for which there can be none here.
    pub(crate) fn of(machines: usize) -> Result<Self, String> {
        let network = Self { id: std::process::id(), machines };
        for tool in ["ip", "tc", "nft"] {
            run(tool, &["-V"]).map_err(|stderr| format!("`{tool}` cannot be used ({stderr}): etc/prepare netns"))?;
        }
        network.build().map_err(|stderr| format!("no network namespaces, root has to make them ({stderr})"))?;
        Ok(network)
    }

    fn build(&self) -> Result<(), String> {
        let bridge = self.bridge();
        run("ip", &["link", "add", &bridge, "type", "bridge"])?;
        run("ip", &["addr", "add", &format!("{}/24", self.hub()), "dev", &bridge])?;
        run("ip", &["link", "set", &bridge, "up"])?;
        for at in 0..self.machines {
            let (space, near) = (self.space(at), self.cable(at));
            run("ip", &["netns", "add", &space])?;
            run("ip", &["link", "add", &near, "type", "veth", "peer", "name", "eth0", "netns", &space])?;
            run("ip", &["link", "set", &near, "master", &bridge, "up"])?;
            run("ip", &["-n", &space, "addr", "add", &format!("{}/24", self.address(at)), "dev", "eth0"])?;
            run("ip", &["-n", &space, "link", "set", "eth0", "up"])?;
            run("ip", &["-n", &space, "link", "set", "lo", "up"])?;
        }
        Ok(())
    }

    fn bridge(&self) -> String {
        format!("bt{}", self.id)
    }

    /// The name of the namespace of a machine.
    pub(crate) fn space(&self, at: usize) -> String {
        format!("bt{}-{at}", self.id)
    }

    fn cable(&self, at: usize) -> String {
        format!("bt{}-{at}", self.id)
    }

    fn host(&self, last: usize) -> String {
        // The address range that is reserved for network tests.
        format!("198.{}.{}.{last}", 18 + self.id / 256 % 2, self.id % 256)
    }

    /// The address of the host on the bridge.
    pub(crate) fn hub(&self) -> String {
        self.host(1)
    }

    /// The address of a machine.
    pub(crate) fn address(&self, at: usize) -> String {
        self.host(at + 2)
    }

    /// The command that runs a program on a machine.
    pub(crate) fn command(&self, at: usize, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(at), program]);
        command
    }

    /// Applies a rule to a machine, until the next rule or [`Network::heal`].
    pub(crate) fn set(&self, at: usize, rule: Rule) {
        let drop_port = |port: u16| ["sport", "dport"].map(|end| format!("tcp {end} {port} drop"));
        let [input, output] = match rule {
            Rule::DropAll => ["drop", "drop"].map(str::to_owned),
            Rule::DropIn => ["drop", "accept"].map(str::to_owned),
            Rule::DropOut => ["accept", "drop"].map(str::to_owned),
            Rule::Reset => ["tcp flags & syn == 0 reject with tcp reset", "accept"].map(str::to_owned),
            Rule::Loss => ["numgen random mod 100 < 10 drop"; 2].map(str::to_owned),
            Rule::DropPort(port) => drop_port(port),
            Rule::OnlyPort(port) => ["sport", "dport"].map(|end| format!("tcp {end} != {port} drop")),
        };
        let hook = |name, rule| {
            format!(
                "chain {name} {{ type filter hook {name} priority 0\niifname lo accept\noifname lo accept\n{rule}\n}}\n"
            )
        };
        self.nft(at, &format!("table inet t {{\n{}{}}}\n", hook("input", &input), hook("output", &output)));
    }

    /// Lets everything through again.
    pub(crate) fn heal(&self, at: usize) {
        self.nft(at, "flush ruleset");
    }

    /// Applies rules of nftables to a machine.
    pub(crate) fn nft(&self, at: usize, rules: &str) {
        let mut nft = self.command(at, "nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft refused {rules}");
    }

    /// Unplugs a machine's cable. Neither end gets an error.
    pub(crate) fn unplug(&self, at: usize) {
        run("ip", &["link", "set", &self.cable(at), "nomaster"]).unwrap();
    }

    pub(crate) fn plug(&self, at: usize) {
        run("ip", &["link", "set", &self.cable(at), "master", &self.bridge()]).unwrap();
    }

    /// Limits the traffic to and from a machine to `rate` (`512kbit`).
    pub(crate) fn limit_rate(&self, at: usize, rate: &str) {
        let shape = ["root", "tbf", "rate", rate, "burst", "16kb", "latency", "400ms"];
        run("tc", &[&["qdisc", "add", "dev", &self.cable(at)], &shape[..]].concat()).unwrap();
        run("tc", &[&["-n", &self.space(at), "qdisc", "add", "dev", "eth0"], &shape[..]].concat()).unwrap();
    }

    pub(crate) fn unlimit_rate(&self, at: usize) {
        run("tc", &["qdisc", "del", "dev", &self.cable(at), "root"]).unwrap();
        run("tc", &["-n", &self.space(at), "qdisc", "del", "dev", "eth0", "root"]).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for at in 0..self.machines {
            let _ = run("ip", &["link", "del", &self.cable(at)]);
            let _ = run("ip", &["netns", "del", &self.space(at)]);
        }
        let _ = run("ip", &["link", "del", &self.bridge()]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|error| error.to_string())?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(stderr.trim().to_owned()) }
}

/// Prints the reason for which a test is skipped. It writes past the test harness, which shows output only of failed
/// tests.
pub(crate) fn report_skipped(test: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "test {test} is SKIPPED: {why}");
}
