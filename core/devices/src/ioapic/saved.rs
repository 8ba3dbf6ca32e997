//! Saved form, version 1.

use super::chip::Ioapic;
use super::spec::Redirection;
use crate::saved::saved_form;

saved_form!(IoapicForm of Ioapic { index: u8, id: u32, pins: u32, entries: [Redirection; 24] });
