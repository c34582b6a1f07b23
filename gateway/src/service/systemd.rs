//! Services of systemd.

use std::path::PathBuf;

use super::plan::{Action, Part, Plan, Scope, ServiceRequest};

/// The settings file of the machine's services.
pub(super) const SETTINGS: &str = "/etc/baton/baton.toml";
/// The program in the units of the sources.
const PROGRAM: &str = "/usr/local/bin/baton";
const STAGE: &str = include_str!("../../../etc/systemd/baton-stage.service");
const GATEWAY: &str = include_str!("../../../etc/systemd/baton-gateway.service");

/// The plan for a service of systemd.
pub(super) fn plan(request: &ServiceRequest) -> Plan {
    let unit = format!("baton-{}.service", request.part.word());
    match request.scope {
        Scope::User => user(request, &unit),
        Scope::System => system(request, &unit),
    }
}

fn user(request: &ServiceRequest, unit: &str) -> Plan {
    Plan {
        needed: Vec::new(),
        file: (request.config.join("systemd/user").join(unit), user_unit(request)),
        install: vec![
            Action::new(&["systemctl", "--user", "daemon-reload"]),
            Action::new(&["systemctl", "--user", "enable", "--now", unit]),
            // Else the service ends when its person logs out. Some systems do not let everybody ask for that.
            Action::that_may_fail(&["loginctl", "enable-linger"]),
        ],
        stop: vec![Action::that_may_fail(&["systemctl", "--user", "disable", "--now", unit])],
        forget: vec![Action::new(&["systemctl", "--user", "daemon-reload"])],
        log: format!("journalctl --user -u {unit} -f"),
    }
}

fn system(request: &ServiceRequest, unit: &str) -> Plan {
    let text = if request.part == Part::Gateway { GATEWAY } else { STAGE };
    let text = text.replace(PROGRAM, &quoted(&request.program.to_string_lossy()));
    let key = "on one machine: (umask 077; baton key > /etc/baton/cluster.key); copy it to the others";
    Plan {
        needed: vec![
            (SETTINGS.into(), "etc/baton.toml of the sources, with etcd, advertise and model set"),
            ("/etc/baton/cluster.key".into(), key),
        ],
        file: (PathBuf::from("/etc/systemd/system").join(unit), text),
        install: vec![
            Action::that_may_fail(&[
                "useradd",
                "--system",
                "--home-dir",
                "/var/lib/baton",
                "--shell",
                "/usr/sbin/nologin",
                "baton",
            ]),
            Action::new(&["systemctl", "daemon-reload"]),
            Action::new(&["systemctl", "enable", "--now", unit]),
        ],
        stop: vec![Action::that_may_fail(&["systemctl", "disable", "--now", unit])],
        forget: vec![Action::new(&["systemctl", "daemon-reload"])],
        log: format!("journalctl -u {unit} -f"),
    }
}

fn user_unit(request: &ServiceRequest) -> String {
    let verb = request.part.word();
    let words = [request.program.to_string_lossy().into_owned(), verb.to_owned()];
    let words: Vec<_> = words.iter().chain(&request.arguments).map(|word| quoted(word)).collect();
    format!(
        "# Written by `baton service install`; `baton service uninstall {verb}` removes it.\n\
         [Unit]\n\
         Description=baton {verb}\n\
         After=network-online.target\n\n\
         [Service]\n\
         ExecStart={}\n\
         KillSignal=SIGTERM\n\
         TimeoutStopSec=30\n\
         Restart=always\n\
         RestartSec=2\n\
         LimitNOFILE=16384\n\n\
         [Install]\n\
         WantedBy=default.target\n",
        words.join(" ")
    )
}

/// A word of a unit's command: in quotes if it needs them, with systemd's own signs (`%`, `$`) doubled.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/-_.,:=@+".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let mut text = String::from("\"");
    for letter in word.chars() {
        match letter {
            '"' | '\\' => text.extend(['\\', letter]),
            '%' | '$' => text.extend([letter, letter]),
            '\n' => text.push_str("\\n"),
            _ => text.push(letter),
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::request;
    use super::*;

    #[test]
    fn a_person_s_service_is_in_their_folder_and_needs_no_rights() {
        let plan = plan(&request(Part::Up, Scope::User, &["--stages", "3", "a \"b\" 5%"]));
        assert_eq!(plan.file.0, PathBuf::from("/home/me/.config/systemd/user/baton-up.service"));
        let expected = "ExecStart=\"/opt/my tools/baton\" up --stages 3 \"a \\\"b\\\" 5%%\"\n";
        assert!(plan.file.1.contains(expected), "{}", plan.file.1);
        assert_eq!(plan.install[1].command, ["systemctl", "--user", "enable", "--now", "baton-up.service"]);
        assert_eq!(plan.stop[0].command, ["systemctl", "--user", "disable", "--now", "baton-up.service"]);
    }

    #[test]
    fn the_machine_s_service_is_the_unit_of_the_sources_with_this_program() {
        let plan = plan(&request(Part::Gateway, Scope::System, &[]));
        assert_eq!(plan.file.0, PathBuf::from("/etc/systemd/system/baton-gateway.service"));
        assert!(plan.file.1.contains("ExecStart=\"/opt/my tools/baton\" --config /etc/baton/baton.toml gateway\n"));
        assert!(plan.file.1.contains("NoNewPrivileges=yes"));
        assert_eq!(plan.install.last().unwrap().command, ["systemctl", "enable", "--now", "baton-gateway.service"]);
    }
}
