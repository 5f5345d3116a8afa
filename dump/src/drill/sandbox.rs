//! No network for a process and everything that it starts. A filter of the kernel (seccomp) allows it to create Unix sockets only:
//! code of a dump reaches no other server, whatever it runs as. The filter needs no privilege, and cannot be removed.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

/// `AF_UNIX`
const UNIX: u64 = 1;
/// `EAFNOSUPPORT`: as on a machine without that protocol.
const NOT_SUPPORTED: u32 = 97;
/// `socket`
#[cfg(target_arch = "x86_64")]
const SOCKET: i64 = 41;
#[cfg(not(target_arch = "x86_64"))]
const SOCKET: i64 = 198;
/// `io_uring_setup`: it creates sockets that the filter would not see.
const RING: i64 = 425;
/// The same calls of the x32 interface of x86-64.
const X32: i64 = 0x4000_0000;

/// The kernel does not accept the filter.
#[derive(Debug, thiserror::Error)]
#[error("the network cannot be forbidden to the temporary server: {0}")]
pub struct SandboxError(String);

/// Forbids the network to this process, in all of its threads, and to everything that it starts.
pub fn forbid_network() -> Result<(), SandboxError> {
    let program = filter().map_err(|error| SandboxError(error.to_string()))?;
    apply_filter_all_threads(&program).map_err(|error| SandboxError(error.to_string()))
}

fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, UNIX)?;
    let other_socket = || Ok::<_, seccompiler::BackendError>(vec![SeccompRule::new(vec![condition.clone()])?]);
    let mut rules = BTreeMap::from([(SOCKET, other_socket()?), (RING, Vec::new())]);
    if cfg!(target_arch = "x86_64") {
        rules.insert(SOCKET | X32, other_socket()?);
        rules.insert(RING | X32, Vec::new());
    }
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(NOT_SUPPORTED), arch)?.try_into()
}
