//! An operator of one test's own, as a process on this machine that looks after the test's namespace only.

use crate::TestNamespace;
use jiff::SignedDuration;
use pgrail_testing::free_port;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Stdio;
use tokio::process::{Child, Command};

/// The binary under test.
pub fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("PGRAIL_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("the path of this test");
    let folder = test.parent().and_then(|deps| deps.parent()).expect("target/debug");
    let path = folder.join("pgrail");
    assert!(
        path.exists(),
        "{} does not exist: build it with `cargo build -p pgrail`, or set PGRAIL_BIN",
        path.display()
    );
    path
}

/// A clock that a test sets, by libfaketime (`e2e/clock.sh`), which `PGRAIL_TEST_CLOCK` names. The clock that only counts runs on.
pub struct Clock {
    offset: PathBuf,
    library: PathBuf,
}

impl Clock {
    /// That of the machine, at first.
    pub fn new(namespace: &TestNamespace) -> Self {
        let library = std::env::var_os("PGRAIL_TEST_CLOCK").expect("PGRAIL_TEST_CLOCK: run `make test`").into();
        let clock = Self { offset: std::env::temp_dir().join(format!("pgrail-clock-{}", namespace.name)), library };
        clock.set(SignedDuration::ZERO);
        clock
    }

    /// Sets it to so much later than that of the machine.
    pub fn set(&self, later: SignedDuration) {
        let new = self.offset.with_extension("new");
        fs::write(&new, format!("{:+}s\n", later.as_secs())).expect("the clock's file");
        fs::rename(new, &self.offset).expect("the clock's file");
    }

    fn show(&self, command: &mut Command) {
        command.env("LD_PRELOAD", &self.library).env("FAKETIME_TIMESTAMP_FILE", &self.offset);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
}

/// A running operator. Killed when dropped.
pub struct Operator {
    child: Child,
    log: PathBuf,
    metrics: String,
}

impl Operator {
    /// Starts one for a namespace. It may reach databases on this machine.
    pub async fn start(namespace: &TestNamespace) -> Self {
        Self::start_as(namespace, "test").await
    }

    /// As [`Self::start`], with a name in the Lease: for two at once.
    pub async fn start_as(namespace: &TestNamespace, identity: &str) -> Self {
        Self::start_with(namespace, identity, &[]).await
    }

    /// As [`Self::start_as`], with more options.
    pub async fn start_with(namespace: &TestNamespace, identity: &str, options: &[&str]) -> Self {
        Self::spawn(namespace, identity, &[&Self::scope(namespace), options].concat()).await
    }

    /// Starts one that runs the policies of the whole cluster, and nothing else. Its Lease is in the namespace.
    pub async fn start_policies(namespace: &TestNamespace) -> Self {
        Self::spawn(namespace, "policies", &["--only-policies"]).await
    }

    /// Starts one for all namespaces. Only for one that another process keeps from leading: it would look after the namespaces
    /// of all tests.
    pub async fn start_everywhere(namespace: &TestNamespace, identity: &str, options: &[&str]) -> Self {
        Self::spawn(namespace, identity, options).await
    }

    /// As [`Self::start_as`], with a clock of the test's own.
    pub async fn start_with_clock(namespace: &TestNamespace, identity: &str, clock: &Clock) -> Self {
        Self::start_process(namespace, identity, &Self::scope(namespace), Some(clock)).await
    }

    fn scope(namespace: &TestNamespace) -> [&str; 4] {
        ["--watch-namespace", &namespace.name, "--allowed-hosts", "127.0.0.0/8,localhost"]
    }

    async fn spawn(namespace: &TestNamespace, identity: &str, options: &[&str]) -> Self {
        Self::start_process(namespace, identity, options, None).await
    }

    async fn start_process(namespace: &TestNamespace, identity: &str, options: &[&str], clock: Option<&Clock>) -> Self {
        let log = std::env::temp_dir().join(format!("pgrail-operator-{}-{identity}.log", namespace.name));
        let out = File::create(&log).expect("a log file");
        let port = free_port();
        let mut command = Command::new(binary());
        if let Some(clock) = clock {
            clock.show(&mut command);
        }
        let child = command
            .args(["operator", "--namespace", &namespace.name, "--identity", identity])
            .args(options)
            .args(["--http-address", &format!("127.0.0.1:{port}")])
            .env("KUBECONFIG", &namespace.cluster.kubeconfig)
            .env("PGRAIL_LOG", std::env::var("PGRAIL_LOG").unwrap_or_else(|_| "info,pgrail=debug".to_owned()))
            .stdin(Stdio::null())
            .stdout(Stdio::from(out.try_clone().expect("a log file")))
            .stderr(Stdio::from(out))
            .kill_on_drop(true)
            .spawn()
            .expect("the operator starts");
        let mut operator = Self { child, log, metrics: format!("127.0.0.1:{port}") };
        operator.serving().await;
        operator
    }

    async fn serving(&mut self) {
        let started = crate::eventually("the operator serves /healthz", async || {
            tokio::net::TcpStream::connect(&self.metrics).await.is_ok().then_some(())
        });
        started.await;
        if let Some(status) = self.child.try_wait().expect("its status") {
            panic!("the operator ended at once ({status}):\n{}", self.log());
        }
    }

    /// What it wrote to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The value of a metric, summed over the series whose labels contain all of `labels`.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.series().await;
        text.lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Every metric in the text format.
    pub async fn series(&self) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(&self.metrics).await.expect("the operator serves /metrics");
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.expect("a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("an answer");
        text
    }

    /// Its process. Panics once it ended.
    pub fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Resident memory in bytes, without code and other files: the program under test is not optimized, and its code is large.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).expect("its status");
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("RssAnon");
        let kilobytes: u64 = line.split_whitespace().nth(1).and_then(|it| it.parse().ok()).expect("a number");
        kilobytes * 1024
    }

    /// Ends it as Kubernetes does, and waits until it has released its Lease.
    pub async fn stop(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.id().to_string()]).status().await;
        assert!(asked.is_ok_and(|status| status.success()), "kill");
        self.child.wait().await.expect("it ends");
    }

    /// Kills it as a lost node would.
    pub async fn kill(mut self) {
        self.child.kill().await.expect("killed");
    }
}
