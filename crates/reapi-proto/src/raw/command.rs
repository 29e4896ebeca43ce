//! A Command message.

use std::fmt;

use bytes::Bytes;

use super::platform::{Platform, read_pair};
use super::splice::apply;
use super::wire::{Field, Fields, Span, check_size};
use super::{Property, PropertyEdit, RawError};

/// A Command as its bytes and what they say. Fields may stand in any order.
#[derive(Clone)]
pub struct Command {
    bytes: Bytes,
    arguments: Vec<Span>,
    environment: Vec<(Span, Span)>,
    working_directory: Span,
    outputs: Vec<Span>,
    platform: Platform,
}

impl Command {
    /// Reads a Command message.
    ///
    /// # Errors
    /// [`RawError`]; a singular field that occurs twice is [`RawError::NotCanonical`].
    pub fn parse(bytes: Bytes) -> Result<Self, RawError> {
        check_size(&bytes)?;
        let (mut arguments, mut environment) = (Vec::new(), Vec::new());
        let (mut files, mut directories, mut paths) = (Vec::new(), Vec::new(), Vec::new());
        let (mut platform, mut working_directory, mut format) = (None, None, None);
        let mut fields = Fields::of(&bytes);
        while let Some(field) = fields.next()? {
            match field.number {
                1 => arguments.push(field.payload()?),
                2 => environment.push(read_pair(&bytes, &field, "an environment variable's name or value")?),
                3 => files.push(field.payload()?),
                4 => directories.push(field.payload()?),
                5 => field.only(&mut platform, "Command.platform")?,
                6 => field.only(&mut working_directory, "Command.working_directory")?,
                7 => paths.push(field.payload()?),
                9 => field.only(&mut format, "Command.output_directory_format")?,
                _ => {}
            }
        }
        let outputs = if paths.is_empty() {
            files.append(&mut directories);
            files
        } else {
            paths
        };
        Ok(Self {
            arguments,
            environment,
            working_directory: working_directory.map_or(Ok(Span::default()), |field: Field| field.payload())?,
            outputs,
            platform: Platform::parse(&bytes, platform)?,
            bytes,
        })
    }

    /// The message.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The program and its arguments.
    pub fn arguments(&self) -> impl Iterator<Item = &[u8]> {
        self.arguments.iter().map(|span| span.of(&self.bytes))
    }

    /// The environment variables, name and value, in the order of the message.
    pub fn environment(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.environment.iter().map(|(name, value)| (name.of(&self.bytes), value.of(&self.bytes)))
    }

    /// Where it runs, relative to the input root; empty for the root itself.
    #[must_use]
    pub fn working_directory(&self) -> &[u8] {
        self.working_directory.of(&self.bytes)
    }

    /// The outputs, relative to the working directory: `output_paths`, or,
    /// where that is empty, the older `output_files` and then `output_directories`.
    pub fn output_paths(&self) -> impl Iterator<Item = &[u8]> {
        self.outputs.iter().map(|span| span.of(&self.bytes))
    }

    /// The platform properties in the order of the message. Newer clients have them in the Action as well.
    pub fn platform(&self) -> impl Iterator<Item = Property<'_>> {
        self.platform.iter(&self.bytes)
    }

    /// The message with other values of platform properties; `bytes()` itself if nothing changes.
    ///
    /// # Errors
    /// [`RawError::Edit`] for a property that is not there.
    pub fn splice_platform(&self, edits: &[PropertyEdit]) -> Result<Bytes, RawError> {
        let patch = self.platform.patch(&self.bytes, edits)?;
        apply(&self.bytes, patch.as_slice())
    }
}

/// Shows sizes only: arguments and environment may hold secrets.
impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({} arguments, {} bytes)", self.arguments.len(), self.bytes.len())
    }
}
