//! The container `postgres` of a pod that drills: a PostgreSQL without any Secret.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{as_server_user, reachable_programs};

/// A running one, as a user that PostgreSQL accepts. Ended when dropped.
pub struct Sidecar {
    process: Child,
    _software: TempDir,
}

impl Sidecar {
    /// Starts the program `agent` with the pod's directories `drill` and `scratch`, which it creates unless they exist.
    pub fn start(agent: &Path, pod: &Path, major: u32) -> Self {
        let software = TempDir::new().expect("a directory");
        let open = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).expect("its mode");
        for directory in [software.path(), pod] {
            open(directory, 0o755);
        }
        for directory in ["drill", "scratch"] {
            std::fs::create_dir_all(pod.join(directory)).expect("a directory");
            open(&pod.join(directory), 0o777);
        }
        let copy = software.path().join("pgrail");
        std::fs::copy(agent, &copy).expect("a copy of the agent");
        let programs = reachable_programs(software.path(), major);
        let mut command = as_server_user(&copy);
        command.args(["agent", "postgres", "--drill"]).arg(pod.join("drill")).arg("--scratch").arg(pod.join("scratch"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("PGRAIL_PG_BIN", programs);
        Self { process: command.stderr(Stdio::null()).spawn().expect("the agent starts"), _software: software }
    }

    /// As the kubelet ends it. Returns its exit status.
    pub fn end(mut self) -> Option<i32> {
        self.terminate()
    }

    fn terminate(&mut self) -> Option<i32> {
        let ended = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        assert!(ended.expect("kill starts").success());
        self.process.wait().expect("it ends").code()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            self.terminate();
        }
    }
}
