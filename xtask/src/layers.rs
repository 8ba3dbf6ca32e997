//! The rule that keeps the core usable without an operating system: a package
//! may depend only on the layers below its own. A layer is a top folder, and
//! dependencies of every kind count, those of tests too.

use crate::report::Failure;
use crate::workspace::{Dependency, Package, Workspace};
use anyhow::Result;

/// What each layer may use. `host` and `metal` never see each other; nothing
/// uses an app but the conformance suite.
const MAY_USE: &[(&str, &[&str])] = &[
    ("spec", &["spec"]),
    ("core", &["core", "spec"]),
    ("host", &["host", "core", "spec"]),
    ("metal", &["metal", "core", "spec"]),
    ("apps", &["host", "metal", "core", "spec"]),
    ("conformance", &["conformance", "apps", "host", "metal", "core", "spec"]),
    ("xtask", &[]),
];

/// Checks every dependency inside the workspace.
///
/// # Errors
/// Lists each package in a folder that is no layer, and each dependency that
/// the rule doesn't allow.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let broken = violations(workspace);
    if broken.is_empty() {
        return Ok(());
    }
    Err(Failure::new(
        format!("the layers' rule is broken:\n    {}", broken.join("\n    ")),
        "move the code to a lower layer, or give the lower layer a trait that the upper one implements (ARCHITECTURE.md)",
    )
    .into())
}

fn violations(workspace: &Workspace) -> Vec<String> {
    workspace.packages.iter().flat_map(|package| of_package(workspace, package)).collect()
}

fn of_package(workspace: &Workspace, package: &Package) -> Vec<String> {
    let layer = workspace.layer_of(package).unwrap_or_default();
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == layer) else {
        return vec![format!("{} is in `{layer}`, which is no layer", package.name)];
    };
    package
        .dependencies
        .iter()
        .filter_map(|dependency| {
            let used = layer_behind(workspace, dependency)?;
            let name = &dependency.name;
            (!allowed.contains(&used.as_str()))
                .then(|| format!("{} ({layer}) may not use {name} ({used})", package.name))
        })
        .collect()
}

/// The layer of a dependency, or nothing when it comes from a registry.
fn layer_behind(workspace: &Workspace, dependency: &Dependency) -> Option<String> {
    let folder = dependency.path.as_deref()?;
    match workspace.packages.iter().find(|package| package.folder() == folder) {
        Some(package) => workspace.layer_of(package),
        None => Some(format!("{}, outside of the workspace", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `("core/cpu", ["spec/x86"])` gives a package `core/cpu` with one dependency.
    fn workspace(packages: &[(&str, &[&str])]) -> Workspace {
        let packages: Vec<_> = packages
            .iter()
            .map(|(folder, uses)| {
                let dependencies: Vec<_> = uses
                    .iter()
                    .map(|used| serde_json::json!({"name": used, "kind": "dev", "path": format!("/w/{used}")}))
                    .chain([serde_json::json!({"name": "anyhow", "kind": null})])
                    .collect();
                serde_json::json!({
                    "name": folder,
                    "manifest_path": format!("/w/{folder}/Cargo.toml"),
                    "dependencies": dependencies,
                })
            })
            .collect();
        let metadata = serde_json::json!({
            "workspace_root": "/w", "target_directory": "/w/target", "packages": packages,
        });
        Workspace::from_json(&metadata.to_string()).unwrap()
    }

    #[test]
    fn arrows_that_point_down_are_allowed() {
        let sound = workspace(&[
            ("spec/x86", &[]),
            ("core/ports", &["spec/x86"]),
            ("core/cpu", &["core/ports", "spec/x86"]),
            ("host/memory", &["core/ports"]),
            ("metal/boot", &["core/cpu"]),
            ("apps/kasane", &["host/memory", "core/cpu"]),
            ("apps/hypervisor", &["metal/boot", "core/cpu"]),
            ("conformance/suite", &["apps/kasane", "metal/boot", "host/memory"]),
            ("xtask", &[]),
        ]);

        assert_eq!(violations(&sound), Vec::<String>::new());
    }

    #[test]
    fn each_arrow_that_points_up_or_across_is_named() {
        let broken = workspace(&[
            ("spec/x86", &["core/cpu"]),
            ("core/cpu", &["host/memory"]),
            ("host/memory", &["metal/boot"]),
            ("metal/boot", &["host/memory"]),
            ("apps/kasane", &["conformance/suite"]),
            ("conformance/suite", &["xtask"]),
            ("xtask", &["spec/x86"]),
        ]);

        let found = violations(&broken);

        assert_eq!(
            found,
            [
                "spec/x86 (spec) may not use core/cpu (core)",
                "core/cpu (core) may not use host/memory (host)",
                "host/memory (host) may not use metal/boot (metal)",
                "metal/boot (metal) may not use host/memory (host)",
                "apps/kasane (apps) may not use conformance/suite (conformance)",
                "conformance/suite (conformance) may not use xtask (xtask)",
                "xtask (xtask) may not use spec/x86 (spec)",
            ]
        );
    }

    #[test]
    fn a_package_outside_of_every_layer_is_named() {
        let stray = workspace(&[("tools/thing", &[])]);

        assert_eq!(violations(&stray), ["tools/thing is in `tools`, which is no layer"]);
    }

    #[test]
    fn a_path_out_of_the_workspace_is_named() {
        let leaving = workspace(&[("core/cpu", &["../elsewhere"])]);

        assert_eq!(
            violations(&leaving),
            [
                "core/cpu (core) may not use ../elsewhere (/w/../elsewhere, outside of the workspace)"
            ]
        );
    }
}
