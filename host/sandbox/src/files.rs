//! Landlock: the process reaches the files of its machine only.

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};

use crate::{FileAccess, Right, SandboxError};

/// The newest version of Landlock whose rules we know. An older kernel enforces what it can.
const KNOWN: ABI = ABI::V6;

/// From now on this thread, and those that it starts, reach only what `access` names; they also
/// send no signals to other processes and connect to no abstract Unix sockets of others. What is
/// open stays usable. On a kernel without Landlock nothing happens.
///
/// # Errors
/// The kernel has Landlock and refuses the rules.
pub fn confine_files(access: &FileAccess) -> Result<(), SandboxError> {
    restrict(access).map_err(|error| SandboxError::Files(error.to_string()))
}

fn restrict(access: &FileAccess) -> Result<(), RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    for (path, right) in access.iter() {
        let found: Vec<Result<PathBeneath<PathFd>, RulesetError>> =
            path_beneath_rules([path], rights(right)).collect();
        rules = rules.add_rules(found)?;
    }
    rules.restrict_self().map(|_status| ())
}

fn rights(right: Right) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    match right {
        Right::Read => read,
        Right::Write => {
            read | AccessFs::WriteFile | AccessFs::Truncate | BitFlags::from(AccessFs::IoctlDev)
        }
        Right::Sockets => {
            read | AccessFs::WriteFile
                | AccessFs::MakeSock
                | AccessFs::MakeDir
                | AccessFs::RemoveFile
                | AccessFs::RemoveDir
        }
        Right::All => AccessFs::from_all(KNOWN) & !BitFlags::from(AccessFs::Execute),
    }
}
