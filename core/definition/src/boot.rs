//! What the machine starts with.

use alloc::string::String;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Direct start of a kernel, without firmware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BootDefinition {
    /// The kernel image (Linux bzImage, or an ELF with a PVH note or a Multiboot header),
    /// relative to the definition file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The initial RAM disk, relative to the definition file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<String>,
    /// The kernel's command line.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub append: String,
}

impl BootDefinition {
    /// Whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kernel.is_none() && self.initrd.is_none() && self.append.is_empty()
    }
}
