//! Decides that nothing is written where something else is read or written,
//! however the paths are spelt.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use crate::config::{Diagnostics, Mistake, Span};

/// The files of a pipeline and who uses them.
#[derive(Default)]
pub(super) struct Files {
    uses: Vec<Use>,
}

struct Use {
    who: String,
    what: Target,
    writes: bool,
    place: Option<Span>,
}

enum Target {
    File(PathBuf),
    Pattern { folder: PathBuf, pattern: String },
}

impl Files {
    pub fn reads(&mut self, who: &str, path: &Path, place: Option<Span>) {
        self.push(who, Target::File(identity(path)), false, place);
    }

    pub fn reads_pattern(&mut self, who: &str, folder: &Path, pattern: &str, place: Span) {
        let target = Target::Pattern {
            folder: identity(folder),
            pattern: pattern.to_owned(),
        };
        self.push(who, target, false, Some(place));
    }

    pub fn writes(&mut self, who: &str, path: &Path, place: Option<Span>) {
        self.push(who, Target::File(identity(path)), true, place);
    }

    fn push(&mut self, who: &str, what: Target, writes: bool, place: Option<Span>) {
        self.uses.push(Use {
            who: who.to_owned(),
            what,
            writes,
            place,
        });
    }

    /// Every writer has its file for itself.
    pub fn report_conflicts(&self, mistakes: &mut Diagnostics) {
        for (i, writer) in self.uses.iter().enumerate() {
            let Target::File(path) = &writer.what else {
                continue;
            };
            if !writer.writes {
                continue;
            }
            // Two writers are one mistake: the later one reports it.
            let conflict =
                self.uses.iter().enumerate().find(|(j, other)| {
                    *j != i && (*j < i || !other.writes) && other.what.covers(path)
                });
            if let Some((_, other)) = conflict {
                mistakes.push(describe(writer, other, path));
            }
        }
    }
}

impl Target {
    fn covers(&self, path: &Path) -> bool {
        match self {
            Target::File(file) => file == path,
            Target::Pattern { folder, pattern } => {
                let name = path.file_name().and_then(|name| name.to_str());
                path.parent() == Some(folder)
                    && name.is_some_and(|name| name_matches(pattern, name))
            }
        }
    }
}

fn describe(writer: &Use, other: &Use, path: &Path) -> Mistake {
    let verb = if other.writes { "writes" } else { "uses" };
    let (who, path) = (&writer.who, path.display());
    let mut mistake = Mistake::new(match other.place {
        Some(_) => format!("{who} would write to {path}, which {} {verb}", other.who),
        None => format!("{who} would write over {}", other.who),
    });
    if let Some(place) = &writer.place {
        mistake = mistake.at(place.clone(), format!("{who} writes here"));
    }
    if let Some(place) = other
        .place
        .as_ref()
        .filter(|place| Some(*place) != writer.place.as_ref())
    {
        mistake = mistake.at(place.clone(), format!("{} {verb} it", other.who));
    }
    let is_dead_letters = |this: &Use| this.who == "the dead letters";
    mistake.help(if is_dead_letters(writer) || is_dead_letters(other) {
        "give another file to one of them; `dead_letters = \"…\"` names the dead letters' file"
    } else {
        "give another file to one of them"
    })
}

/// One path for one file: absolute, without `.` and `..`, links followed as
/// far as there is something to follow.
fn identity(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut rest: Vec<OsString> = Vec::new();
    let mut existing = absolute.as_path();
    loop {
        if let Ok(found) = existing.canonicalize() {
            let mut identity = found;
            for part in rest.iter().rev() {
                if part == ".." {
                    identity.pop();
                } else {
                    identity.push(part);
                }
            }
            return identity;
        }
        let last = match existing.components().next_back() {
            Some(Component::Normal(name)) => name.to_owned(),
            Some(Component::ParentDir) => "..".into(),
            _ => return absolute,
        };
        rest.push(last);
        match existing.parent() {
            Some(parent) => existing = parent,
            None => return absolute,
        }
    }
}

/// Whether a file's name is one that `pattern` means; `*` is any characters.
/// As in a shell, names that start with a dot must be asked for.
pub(super) fn name_matches(pattern: &str, name: &str) -> bool {
    if name.starts_with('.') && !pattern.starts_with('.') {
        return false;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
