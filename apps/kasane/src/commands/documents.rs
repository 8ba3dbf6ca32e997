//! Documents that the program makes of itself: schema, completions, man page.

use kasane_definition::VmDefinition;

use super::print;
use crate::cli::command;
use crate::outcome::{ExitStatus, Failure};

pub(super) fn schema() -> Result<ExitStatus, Failure> {
    let text = serde_json::to_string_pretty(&VmDefinition::schema())
        .map_err(|error| Failure::host(error, "report this: it is a bug"))?;
    print(&format!("{text}\n"))
}

pub(super) fn completions(shell: clap_complete::Shell) -> Result<ExitStatus, Failure> {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut command(), "kasane", &mut bytes);
    print(&String::from_utf8_lossy(&bytes))
}

/// One page: the program's own part, then a section for each subcommand's.
pub(super) fn man() -> Result<ExitStatus, Failure> {
    let mut bytes = Vec::new();
    let written = clap_mangen::Man::new(command()).render(&mut bytes).and_then(|()| {
        let described = command();
        let commands = described.get_subcommands().filter(|one| !one.is_hide_set());
        commands.into_iter().try_for_each(|one| {
            let title = format!(".SH \"KASANE {}\"\n", one.get_name().to_uppercase());
            bytes.extend_from_slice(title.as_bytes());
            let page =
                clap_mangen::Man::new(one.clone().bin_name(format!("kasane {}", one.get_name())));
            page.render_synopsis_section(&mut bytes)?;
            page.render_description_section(&mut bytes)?;
            page.render_options_section(&mut bytes)
        })
    });
    written.map_err(|error| Failure::host(error, "report this: it is a bug"))?;
    print(&String::from_utf8_lossy(&bytes))
}
