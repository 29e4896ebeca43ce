//! A Command message.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::platform::{Platform, read_pair};
use super::splice::apply;
use super::wire::{Field, Fields, Span, check_size};
use super::{Property, PropertyEdit, RawError};

/// A Command as its bytes and what they say. Fields may stand in any order.
///
/// Clones share both.
#[derive(Clone)]
pub struct Command(Arc<Inner>);

struct Inner {
    bytes: Bytes,
    /// In the order of the message.
    parts: Vec<(Part, Span)>,
    working_directory: Span,
    platform: Platform,
}

/// What a part of the message is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Argument,
    /// Of an environment variable; its value comes next.
    Name,
    Value,
    OutputFile,
    OutputDirectory,
    OutputPath,
}

/// Bytes that an argument has at least in practice, with its tag.
const TYPICAL_PART_BYTES: usize = 12;

impl Command {
    /// Reads a Command message.
    ///
    /// # Errors
    /// [`RawError`]; a singular field that occurs twice is [`RawError::NotCanonical`].
    pub fn parse(bytes: Bytes) -> Result<Self, RawError> {
        check_size(&bytes)?;
        let mut parts = Vec::with_capacity(bytes.len() / TYPICAL_PART_BYTES);
        let (mut platform, mut working_directory, mut format) = (None, None, None);
        let mut fields = Fields::of(&bytes);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => parts.push((Part::Argument, field.payload()?)),
                2 => {
                    let (name, value) = read_pair(&bytes, &field, "an environment variable's name or value")?;
                    parts.extend([(Part::Name, name), (Part::Value, value)]);
                }
                3 => parts.push((Part::OutputFile, field.payload()?)),
                4 => parts.push((Part::OutputDirectory, field.payload()?)),
                5 => field.only(&mut platform, "Command.platform")?,
                6 => field.only(&mut working_directory, "Command.working_directory")?,
                7 => parts.push((Part::OutputPath, field.payload()?)),
                9 => field.only(&mut format, "Command.output_directory_format")?,
                _ => {}
            }
        }
        let working_directory = working_directory.map_or(Ok(Span::default()), |field: Field| field.payload())?;
        let platform = Platform::parse(&bytes, platform)?;
        Ok(Self(Arc::new(Inner { bytes, parts, working_directory, platform })))
    }

    /// The message.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// The program and its arguments.
    pub fn arguments(&self) -> impl Iterator<Item = &[u8]> {
        self.parts(Part::Argument)
    }

    /// The environment variables, name and value, in the order of the message.
    pub fn environment(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.parts(Part::Name).zip(self.parts(Part::Value))
    }

    /// Where it runs, relative to the input root; empty for the root itself.
    #[must_use]
    pub fn working_directory(&self) -> &[u8] {
        self.0.working_directory.of(self.bytes())
    }

    /// The outputs, relative to the working directory: `output_paths`, or,
    /// where that is empty, the older `output_files` and then `output_directories`.
    pub fn output_paths(&self) -> impl Iterator<Item = &[u8]> {
        let is_old = self.parts(Part::OutputPath).next().is_none();
        let old = self.parts(Part::OutputFile).chain(self.parts(Part::OutputDirectory));
        self.parts(Part::OutputPath).chain(old.filter(move |_| is_old))
    }

    /// The platform properties in the order of the message. Newer clients have them in the Action as well.
    pub fn platform(&self) -> impl Iterator<Item = Property<'_>> {
        self.0.platform.iter(self.bytes())
    }

    fn parts(&self, wanted: Part) -> impl Iterator<Item = &[u8]> {
        let parts = self.0.parts.iter().filter(move |(part, _)| *part == wanted);
        parts.map(|(_, span)| span.of(self.bytes()))
    }

    /// The message with other values of platform properties; `bytes()` itself if nothing changes.
    ///
    /// # Errors
    /// [`RawError::Edit`] for a property that is not there.
    pub fn splice_platform(&self, edits: &[PropertyEdit]) -> Result<Bytes, RawError> {
        let patch = self.0.platform.patch(self.bytes(), edits)?;
        apply(self.bytes(), patch.as_slice())
    }
}

/// Shows sizes only: arguments and environment may hold secrets.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} arguments, {} bytes)", self.arguments().count(), self.bytes().len())
    }
}
