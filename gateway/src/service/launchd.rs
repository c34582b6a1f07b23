//! Services of launchd.

use std::path::PathBuf;

use super::plan::{Action, Part, Plan, Scope, ServiceRequest};

/// The settings file of the machine's services.
pub(super) const SETTINGS: &str = "/usr/local/etc/baton/baton.toml";
/// The program in the property lists of the sources.
const PROGRAM: &str = "/usr/local/bin/baton</string>";
const STAGE: &str = include_str!("../../../etc/launchd/dev.baton.stage.plist");
const GATEWAY: &str = include_str!("../../../etc/launchd/dev.baton.gateway.plist");

/// The plan for a service of launchd.
pub(super) fn plan(request: &ServiceRequest) -> Plan {
    let label = format!("dev.baton.{}", request.part.word());
    let (folder, domain, text, log, needed) = match request.scope {
        Scope::User => (
            request.home.join("Library/LaunchAgents"),
            format!("gui/{}", request.user_id),
            agent(request, &label),
            agent_log(request),
            Vec::new(),
        ),
        Scope::System => {
            let text = if request.part == Part::Gateway { GATEWAY } else { STAGE };
            let program = format!("{}</string>", escaped(&request.program.to_string_lossy()));
            let key = "on one Mac: (umask 077; baton key > /usr/local/etc/baton/cluster.key); copy it to the others";
            let needed = vec![
                (PathBuf::from(SETTINGS), "etc/baton.toml of the sources, with etcd, advertise and model set"),
                (PathBuf::from("/usr/local/etc/baton/cluster.key"), key),
            ];
            let log = format!("/usr/local/var/log/baton-{}.log", request.part.word());
            let folder = PathBuf::from("/Library/LaunchDaemons");
            (folder, "system".to_owned(), text.replace(PROGRAM, &program), log, needed)
        }
    };
    let file = folder.join(format!("{label}.plist"));
    let path = file.to_string_lossy().into_owned();
    let target = format!("{domain}/{label}");
    Plan {
        needed,
        file: (file, text),
        install: vec![
            // One that runs already is replaced.
            Action::that_may_fail(&["launchctl", "bootout", &target]),
            Action::new(&["launchctl", "bootstrap", &domain, &path]),
        ],
        stop: vec![Action::that_may_fail(&["launchctl", "bootout", &target])],
        forget: Vec::new(),
        log: format!("tail -f '{log}'"),
    }
}

fn agent_log(request: &ServiceRequest) -> String {
    request.home.join(format!("Library/Logs/baton-{}.log", request.part.word())).to_string_lossy().into_owned()
}

/// The property list of a person's service.
fn agent(request: &ServiceRequest, label: &str) -> String {
    let verb = request.part.word().to_owned();
    let words = [request.program.to_string_lossy().into_owned(), verb];
    let words = words.iter().chain(&request.arguments);
    let words: String = words.map(|word| format!("        <string>{}</string>\n", escaped(word))).collect();
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         <plist version=\"1.0\">\n<dict>\n    \
         <key>Label</key>\n    <string>{label}</string>\n    \
         <key>ProgramArguments</key>\n    <array>\n{words}    </array>\n    \
         <key>RunAtLoad</key>\n    <true/>\n    \
         <key>KeepAlive</key>\n    <true/>\n    \
         <key>ThrottleInterval</key>\n    <integer>2</integer>\n    \
         <key>ExitTimeOut</key>\n    <integer>30</integer>\n    \
         <key>ProcessType</key>\n    <string>Interactive</string>\n    \
         <key>StandardOutPath</key>\n    <string>{log}</string>\n    \
         <key>StandardErrorPath</key>\n    <string>{log}</string>\n    \
         <key>SoftResourceLimits</key>\n    <dict>\n        \
         <key>NumberOfFiles</key>\n        <integer>16384</integer>\n    </dict>\n\
         </dict>\n</plist>\n",
        log = escaped(&agent_log(request)),
    )
}

/// Text inside an element of XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::plan::tests::request;
    use super::*;

    #[test]
    fn a_person_s_service_is_an_agent() {
        let plan = plan(&request(Part::Up, Scope::User, &["--model-alias", "<a&b>"]));
        assert_eq!(plan.file.0, PathBuf::from("/home/me/Library/LaunchAgents/dev.baton.up.plist"));
        assert!(plan.file.1.contains("<string>&lt;a&amp;b&gt;</string>"), "{}", plan.file.1);
        let path = "/home/me/Library/LaunchAgents/dev.baton.up.plist";
        assert_eq!(plan.install[1].command, ["launchctl", "bootstrap", "gui/501", path]);
        assert_eq!(plan.stop[0].command, ["launchctl", "bootout", "gui/501/dev.baton.up"]);
    }

    #[test]
    fn the_machine_s_service_is_the_daemon_of_the_sources_with_this_program() {
        let plan = plan(&request(Part::Stage, Scope::System, &[]));
        assert_eq!(plan.file.0, PathBuf::from("/Library/LaunchDaemons/dev.baton.stage.plist"));
        assert!(plan.file.1.contains("        <string>/opt/my tools/baton</string>\n"), "{}", plan.file.1);
        assert_eq!(plan.install[1].command[..3], ["launchctl", "bootstrap", "system"]);
    }
}
