//! A whole cluster on an etcd with TLS, users and the least role of etc/keys.md: it serves, it can be shown and pinned,
//! and a user of less rights is told which one is missing.

mod common;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use common::cluster::Cluster;
use common::etcd::free_port;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// etcd's start, on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);
/// The commands of etc/keys.md that give the role its permissions.
const ROLE: [&str; 2] = [
    "etcdctl role grant-permission baton readwrite --prefix=true /baton/v1/home/",
    "etcdctl role grant-permission baton readwrite --prefix=true /baton/v1-load/home/",
];

/// A running etcd, its certificates and its data. Dropping it kills it.
struct SecuredEtcd {
    process: Child,
    folder: tempfile::TempDir,
    url: String,
}

impl SecuredEtcd {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_certificates(folder.path());
        let url = format!("https://127.0.0.1:{}", free_port());
        let process = Command::new("etcd")
            .args(["--name=test", "--data-dir=data", "--log-level=error", "--logger=zap", "--bcrypt-cost=4"])
            .args(["--client-cert-auth", "--trusted-ca-file=ca.pem", "--cert-file=server.pem"])
            .args(["--key-file=server.key", "--listen-client-urls", &url, "--advertise-client-urls", &url])
            .args(["--listen-peer-urls=unix://peer:0", "--initial-advertise-peer-urls=unix://peer:0"])
            .arg("--initial-cluster=test=unix://peer:0")
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("etcd starts (Debian: apt-get install etcd-server)");
        let etcd = Self { process, folder, url };
        let started = Instant::now();
        while !etcd.etcdctl(&["endpoint", "health"]) {
            assert!(started.elapsed() < START_MAX, "etcd does not get healthy");
            std::thread::sleep(Duration::from_millis(50));
        }
        etcd
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Runs etcdctl without a user. True if it succeeds.
    fn etcdctl(&self, words: &[&str]) -> bool {
        let files = ["--cacert", &self.path("ca.pem"), "--cert", &self.path("client.pem"), "--key"];
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &self.url]).args(files).arg(self.path("client.key"));
        command.args(words).output().unwrap().status.success()
    }

    /// The arguments of `baton` as `user`.
    fn arguments(&self, user: &str) -> Vec<String> {
        let mut words = vec!["--etcd".to_owned(), self.url.clone(), "--etcd-user".to_owned(), user.to_owned()];
        for (flag, file) in [("--etcd-ca", "ca.pem"), ("--etcd-cert", "client.pem"), ("--etcd-key", "client.key")] {
            words.extend([flag.to_owned(), self.path(file)]);
        }
        words
    }

    fn baton(&self, user: &str, words: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_baton"));
        command.args(words).args(self.arguments(user)).env("BATON_ETCD_PASSWORD", "pw").output().unwrap()
    }
}

impl Drop for SecuredEtcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write_certificates(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "authority of a test");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for (name, usage) in
        [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), params.signed_by(&key, &authority).unwrap().pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        std::fs::set_permissions(folder.join(format!("{name}.key")), PermissionsExt::from_mode(0o600)).unwrap();
    }
}

#[test]
fn a_cluster_serves_with_the_least_role_and_a_user_of_less_is_told_what_is_missing() {
    let document = include_str!("../etc/keys.md");
    assert!(ROLE.iter().all(|command| document.contains(command)), "etc/keys.md has another role than this test");
    let etcd = SecuredEtcd::start();
    for role in ["baton", "reader", "nobody"] {
        assert!(etcd.etcdctl(&["role", "add", role]));
        assert!(etcd.etcdctl(&["user", "add", &format!("{role}:pw")]));
        assert!(etcd.etcdctl(&["user", "grant-role", role, role]));
    }
    for command in ROLE {
        assert!(etcd.etcdctl(&command.split(' ').skip(1).collect::<Vec<_>>()));
    }
    assert!(etcd.etcdctl(&["role", "grant-permission", "reader", "read", "--prefix=true", "/baton/v1/home/"]));
    for words in [&["user", "add", "root:pw"][..], &["user", "grant-role", "root", "root"], &["auth", "enable"]] {
        assert!(etcd.etcdctl(words), "{words:?}");
    }

    let arguments = etcd.arguments("baton");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let cluster = Cluster::start(2, &arguments, &[("BATON_ETCD_PASSWORD", "pw")]);
    let (tokens, _) = cluster.complete(&[504, 4149, 282, 3575, 314, 3030], 4);
    assert_eq!(tokens.len(), 4);
    let status = etcd.baton("baton", &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let stage = status["stages"][0]["stage"].as_str().unwrap().to_owned();
    assert!(etcd.baton("baton", &["pin", &stage, "--cordon"]).status.success());

    let shown = etcd.baton("reader", &["status"]);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let refused = etcd.baton("reader", &["unpin", &stage]);
    let text = String::from_utf8_lossy(&refused.stderr).replace('\n', " ");
    assert!(
        !refused.status.success() && text.contains("etcd's user reader may not write /baton/v1/home/pins/"),
        "{text}"
    );
    let refused = etcd.baton("nobody", &["status"]);
    let text = String::from_utf8_lossy(&refused.stderr).replace('\n', " ");
    let grant = "etcdctl role grant-permission ROLE readwrite --prefix=true /baton/v1/home/";
    assert!(!refused.status.success() && text.contains(grant), "{text}");
    drop(cluster);
    let file = etcd.path("home.json");
    for words in [&["store", "export", &file][..], &["store", "import", &file, "--replace"]] {
        let output = etcd.baton("baton", words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let wrong = etcd.baton("baton", &["status", "--etcd-password-file", "/dev/null"]);
    assert!(wrong.status.success(), "the variable comes before the file");
}
