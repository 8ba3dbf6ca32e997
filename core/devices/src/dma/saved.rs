//! Saved form, version 1.

use super::chip::{Controller, Dma};
use crate::saved::saved_form;

pub(super) const VERSION: u32 = 1;

saved_form!(ControllerForm of Controller {
    base: [u16; 8], current: [u16; 8], mode: [u8; 4], command: u8, mask: u8, request: u8,
    high_next: bool,
});

#[derive(serde::Serialize, serde::Deserialize)]
pub(super) struct Form {
    controllers: [ControllerForm; 2],
    pages: [u8; 16],
}

impl Form {
    pub(super) fn of(dma: &Dma) -> Self {
        let Dma { controllers, pages } = dma;
        Self { controllers: controllers.each_ref().map(ControllerForm::of), pages: *pages }
    }
    pub(super) fn put(self, dma: &mut Dma) {
        let Self { controllers, pages } = self;
        for (form, controller) in controllers.into_iter().zip(&mut dma.controllers) {
            form.put(controller);
        }
        dma.pages = pages;
    }
}
