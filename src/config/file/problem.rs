//! What is wrong with a configuration file: one line for each mistake, all of them at once.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};

/// Nobody reads further, and a broken file must not fill the log.
const MOST: usize = 100;

/// Longest text or path of a problem, in characters; they may quote the file.
const LONGEST: usize = 300;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1; 0 where there is none.
    pub line: usize,
    /// Where in the document, such as `keys[2].role`; empty for the document itself.
    pub path: String,
    /// What is wrong. Values of secrets are not in it.
    pub text: String,
}

impl Problem {
    pub fn new(line: usize, path: impl fmt::Display, text: impl fmt::Display) -> Self {
        Self { line, path: printable(&path.to_string()), text: printable(&text.to_string()) }
    }
}

/// Keys may hold any character, line ends and terminal sequences too.
fn printable(text: &str) -> String {
    let mut printable = String::new();
    for (count, character) in text.chars().enumerate() {
        match character {
            _ if count == LONGEST => {
                printable.push('…');
                break;
            }
            _ if character.is_control() => printable.extend(character.escape_default()),
            _ => printable.push(character),
        }
    }
    printable
}

/// Every mistake of a file, in the order of its lines; or what else there is to say of it.
#[derive(Debug, Clone, Default, thiserror::Error)]
pub struct Problems {
    file: PathBuf,
    list: Vec<Problem>,
    left_out: bool,
}

impl Problems {
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        for (at, problem) in self.list.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            match problem.line {
                0 => write!(f, "{file}: ")?,
                line => write!(f, "{file}:{line}: ")?,
            }
            if !problem.path.is_empty() {
                write!(f, "{}: ", problem.path)?;
            }
            f.write_str(&problem.text)?;
        }
        if self.left_out {
            write!(f, "\n{file}: and more")?;
        }
        Ok(())
    }
}

/// How to treat an environment variable that a file names and that is not set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Unset {
    /// The gateway needs its value.
    #[default]
    Mistake,
    /// The file is only checked, perhaps on another machine than the one that uses it.
    Note,
}

/// Collects the problems while a file is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    list: Vec<Problem>,
    notes: Vec<Problem>,
    left_out: bool,
    unset: Unset,
}

impl Report {
    pub fn new(unset: Unset) -> Self {
        Self { unset, ..Self::default() }
    }

    /// An environment variable that is named here is not set.
    pub fn unset(&mut self, line: usize, path: impl fmt::Display) {
        match self.unset {
            Unset::Mistake => self.add(Problem::new(line, path, "this environment variable is not set")),
            Unset::Note if self.notes.len() < MOST => {
                self.notes.push(Problem::new(line, path, "note: this environment variable is not set here"));
            }
            Unset::Note => {}
        }
    }

    pub fn add(&mut self, problem: Problem) {
        if self.list.len() >= MOST {
            self.left_out = true;
        } else {
            self.list.push(problem);
        }
    }

    /// More is not worth looking for.
    pub fn is_full(&self) -> bool {
        self.left_out
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    pub fn problems(mut self, file: &FilePath) -> Problems {
        self.list.append(&mut self.notes);
        self.list.sort_by_key(|problem| problem.line);
        Problems { file: file.to_owned(), list: self.list, left_out: self.left_out }
    }
}

/// Where a value is in the document.
#[derive(Clone, Copy)]
pub(super) enum Path<'p> {
    Root,
    Key(&'p Path<'p>, &'p str),
    Item(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
