//! A VM definition from anybody: parsed or refused, and what was parsed is written and read back.
#![no_main]

use kasane_definition::VmDefinition;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match VmDefinition::parse(text) {
        Ok(definition) => {
            let written = definition.to_toml().expect("every definition can be written");
            assert_eq!(VmDefinition::parse(&written).as_ref(), Ok(&definition), "{written}");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
