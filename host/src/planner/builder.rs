//! What the checks have in hand: the config, and what has been found wrong.

use std::path::Path;

use crate::config::{Config, Diagnostics};
use crate::connector::{InputFiles, Planning};
use crate::files::Files;

pub(super) struct Builder<'a> {
    pub config: &'a Config,
    pub folder: &'a Path,
    pub inputs: InputFiles,
    pub files: Files,
    pub mistakes: Diagnostics,
}

impl<'a> Builder<'a> {
    pub fn new(config: &'a Config, folder: &'a Path, inputs: InputFiles) -> Self {
        Builder {
            config,
            folder,
            inputs,
            files: Files::default(),
            mistakes: Diagnostics::new(config.origin.clone()),
        }
    }

    /// What a connector is planned with.
    pub fn planning<'s>(&'s mut self, title: &'s str) -> Planning<'s> {
        Planning {
            title,
            pipeline: self.config.name.get_ref(),
            folder: self.folder,
            input_files: self.inputs,
            files: &mut self.files,
            mistakes: &mut self.mistakes,
        }
    }
}
