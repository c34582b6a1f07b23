//! The machine's host name, and a stage name derived from it.

use schema::StageName;

/// The host name that the operating system reports.
pub(super) fn name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// A stage name from a host name: its first label in lower case, with `-` in place of other characters.
pub(super) fn stage_name(host: &str) -> StageName {
    let label = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let legal = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    let label: String = label.chars().map(legal).take(40).collect();
    let label = label.trim_matches('-');
    label.parse().unwrap_or_else(|_| "stage".parse().expect("a constant name that is legal"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_host_name_makes_a_legal_stage_name() {
        for (host, name) in [
            ("Mini-1.local", "mini-1"),
            ("Jürgen’s Mac mini", "j-rgen-s-mac-mini"),
            ("", "stage"),
            ("---", "stage"),
            ("日本", "stage"),
        ] {
            assert_eq!(stage_name(host).as_str(), name);
        }
    }
}
