//! The program as a pod runs it, and what it is compared with: processes, their time and their memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use pgrail_e2e::{ObjectStore, binary};
use pgrail_testing::{Database, Sidecar, programs};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use crate::Result;
use crate::measure::{median, memory_field};

/// How often the memory of a process is read. Its peak only grows: what is missed is what its last moments add.
const SAMPLE_EVERY: Duration = Duration::from_millis(10);

/// What something took, round by round: seconds or MiB, by its name.
#[derive(Debug, Default)]
pub(super) struct Rounds(BTreeMap<&'static str, Vec<f64>>);

impl Rounds {
    pub(super) fn add(&mut self, name: &'static str, value: f64) {
        self.0.entry(name).or_default().push(value);
    }

    fn of(&self, name: &str) -> &[f64] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.keys().copied()
    }

    pub(super) fn median(&self, name: &str) -> f64 {
        median(self.of(name))
    }

    pub(super) fn most(&self, name: &str) -> f64 {
        self.of(name).iter().copied().fold(f64::NAN, f64::max)
    }

    /// The median of the ratios of each round: the machine is as busy for both.
    pub(super) fn ratio(&self, name: &str, to: &str) -> f64 {
        let ratios: Vec<f64> = self.of(name).iter().zip(self.of(to)).map(|(one, other)| one / other).collect();
        median(&ratios)
    }
}

/// A process that ended with 0.
pub(super) struct Ran {
    pub(super) seconds: f64,
    /// MiB that were resident at most: of the process itself, without those that it started.
    pub(super) peak: f64,
    /// CPU time of all processes of the machine meanwhile, in seconds.
    pub(super) cpu: f64,
    pub(super) output: Output,
}

/// Runs a program to its end.
pub(super) async fn run(command: &mut Command) -> Result<Ran> {
    command.stdin(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    let (started, busy) = (Instant::now(), machine_cpu()?);
    let child = command.spawn()?;
    let process = child.id().ok_or("it has ended")?;
    let ended = child.wait_with_output();
    tokio::pin!(ended);
    let mut peak = f64::NAN;
    let output = loop {
        tokio::select! {
            output = &mut ended => break output?,
            () = tokio::time::sleep(SAMPLE_EVERY) => peak = peak.max(memory_field(process, "VmHWM:").unwrap_or(peak)),
        }
    };
    let seconds = started.elapsed().as_secs_f64();
    if !output.status.success() {
        let program = command.as_std().get_program().display().to_string();
        return Err(format!("{program}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(Ran { seconds, peak, cpu: machine_cpu()? - busy, output })
}

/// CPU time of all processes since the machine started, in seconds: user, nice and system, as the first line of /proc/stat has it
/// in hundredths.
fn machine_cpu() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(3);
    let ticks = fields.map(str::parse).collect::<std::result::Result<Vec<f64>, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}

/// One of PostgreSQL's programs. Its output is discarded.
pub(super) fn client(database: &Database, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(programs(database.major).join(program));
    command.args(arguments).stdout(Stdio::null());
    command
}

/// What a pod's containers see, in one directory, and the store.
pub(super) struct Pod {
    directory: TempDir,
    config: Value,
    store: ObjectStore,
    prefix: String,
    major: u32,
}

impl Pod {
    /// With the defaults of a schedule.
    pub(super) fn new(database: &Database) -> Result<Self> {
        let (store, prefix) = (ObjectStore::of_this_run(), database.name.clone());
        let config = json!({
            "identity": {"clusterId": "cluster", "namespace": "bench", "schedule": "bench", "scheduleUid": "uid"},
            "store": {"url": format!("s3://{}/{prefix}", store.bucket), "endpoint": store.endpoint, "allowHttp": true},
            "dump": {
                "database": "bench/bench", "databaseUid": "uid", "backupName": "bench",
                "compression": {"method": "zstd", "level": 3},
                "globals": true, "rowCounts": "Exact", "verification": "ReadBack",
            },
        });
        let pod = Self { directory: TempDir::new()?, config, store, prefix, major: database.major };
        for directory in ["connection", "store", "work"] {
            std::fs::create_dir(pod.path(directory))?;
        }
        std::fs::write(pod.path("connection/uri"), &database.uri)?;
        for (key, value) in pod.store.keys() {
            std::fs::write(pod.path("store").join(key), value)?;
        }
        Ok(pod)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The container `postgres`.
    pub(super) fn sidecar(&self) -> Sidecar {
        Sidecar::start(&binary(), self.directory.path(), self.major)
    }

    /// Runs a step of the agent, with more settings in a section of its configuration. Returns the message that it left, too.
    pub(super) async fn step(&self, step: &str, section: &str, settings: Value) -> Result<(Ran, Value)> {
        let mut config = self.config.clone();
        for (name, value) in settings.as_object().into_iter().flatten() {
            config[section][name] = value.clone();
        }
        let mut command = Command::new(binary());
        command.args(["agent", step]).stdout(Stdio::null());
        command.env("PGRAIL_AGENT_CONFIG", config.to_string()).env("PGRAIL_PG_BIN", programs(self.major));
        for (option, name) in [
            ("--connection-directory", "connection"),
            ("--store-directory", "store"),
            ("--work", "work"),
            ("--drill", "drill"),
            ("--termination-log", "message"),
        ] {
            command.arg(option).arg(self.path(name));
        }
        let ran = run(&mut command).await?;
        let message = serde_json::from_slice(&std::fs::read(self.path("message"))?)?;
        Ok((ran, message))
    }

    /// Restores a table of a backup by the command line. Returns the result that it printed, too.
    pub(super) async fn restore_table(
        &self,
        database: &Database,
        backup: &Backup,
        options: &[&str],
    ) -> Result<(Ran, Value)> {
        let mut command = Command::new(binary());
        command.args(["restore", "--output", "json", "--backup", &backup.location]).args(options);
        command.args(["--manifest-sha256", &backup.manifest_sha256, "--endpoint", &self.store.endpoint]);
        command.args(["--storage-url", &format!("s3://{}/{}", self.store.bucket, self.prefix)]);
        command.envs(self.store.keys()).env("PGRAIL_PG_BIN", programs(self.major)).env("DATABASE_URL", &database.uri);
        let ran = run(command.stdout(Stdio::piped())).await?;
        let result = serde_json::from_slice(&ran.output.stdout)?;
        Ok((ran, result))
    }

    /// The files of a dump in the store.
    fn files(&self, location: &str) -> PathBuf {
        self.store.files.join(&self.store.bucket).join(&self.prefix).join(location)
    }

    pub(super) fn manifest(&self, backup: &Backup) -> Result<Value> {
        Ok(serde_json::from_slice(&std::fs::read(self.files(&backup.location).join("manifest.json"))?)?)
    }

    pub(super) fn remove(&self, backup: &Backup) -> Result<()> {
        Ok(std::fs::remove_dir_all(self.files(&backup.location))?)
    }
}

/// A published dump.
pub(super) struct Backup {
    pub(super) location: String,
    pub(super) manifest_sha256: String,
}

impl Backup {
    /// From the message of `verify`.
    pub(super) fn of(message: &Value) -> Result<Self> {
        let text = |value: &Value| value.as_str().map(str::to_owned).ok_or("a message without a backup");
        Ok(Self { location: text(&message["backup"]["location"])?, manifest_sha256: text(&message["manifestSha256"])? })
    }
}

/// `pg_dump | gzip`, as most scripts do it; into a file, which takes less time than an upload.
pub(super) fn pipeline(database: &Database, file: &Path) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", "set -o pipefail; \"$1\" --dbname \"$2\" | gzip >\"$3\"", "bash"]);
    command.arg(programs(database.major).join("pg_dump")).arg(&database.uri).arg(file);
    command.stdout(Stdio::null());
    command
}
