//! The state of the checks: the config, and the mistakes found so far.

use std::path::Path;

use crate::config::{Config, Diagnostics};
use crate::connector::{InputFiles, Planning, Reserved};
use crate::files::Files;

pub(super) struct Builder<'a> {
    pub config: &'a Config,
    pub folder: &'a Path,
    pub inputs: InputFiles,
    pub files: Files,
    pub reserved: Reserved,
    pub mistakes: Diagnostics,
}

impl<'a> Builder<'a> {
    pub fn new(config: &'a Config, folder: &'a Path, inputs: InputFiles) -> Self {
        Builder {
            config,
            folder,
            inputs,
            files: Files::default(),
            reserved: Reserved::default(),
            mistakes: Diagnostics::new(config.origin.clone()),
        }
    }

    /// What a connector needs for its own checks.
    pub fn planning<'s>(&'s mut self, title: &'s str) -> Planning<'s> {
        Planning {
            title,
            pipeline: self.config.name.get_ref(),
            folder: self.folder,
            has_checkpoints: self.config.has_checkpoints(),
            input_files: self.inputs,
            files: &mut self.files,
            reserved: &mut self.reserved,
            mistakes: &mut self.mistakes,
        }
    }
}
