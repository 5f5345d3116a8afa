//! An archive fed to pg_restore while it is written or read back: its table of contents, and its rows counted.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::{ChildStdin, ChildStdout},
    task::JoinHandle,
};

use super::{ArchiveRows, BlockReader, Blocks, Contents, ContentsReader, FramingError, RowReader};
use crate::{
    Reason,
    clients::{ClientTools, Running, ToolError},
};

/// An archive that pg_restore, or we, cannot read.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// pg_restore failed.
    #[error("the archive does not decode")]
    Tool(#[from] ToolError),
    /// pg_restore succeeded, but what it wrote is not a script of rows.
    #[error("the rows of the archive cannot be counted: {0}")]
    Script(String),
    /// Its framing is not that of an archive.
    #[error("the archive cannot be read: {0}")]
    Framing(String),
}

impl From<FramingError> for DecodeError {
    fn from(error: FramingError) -> Self {
        Self::Framing(error.to_string())
    }
}

impl DecodeError {
    /// For conditions, Events and metrics.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Tool(error) => error.reason(Reason::ArchiveInvalid),
            Self::Script(_) | Self::Framing(_) => Reason::ArchiveInvalid,
        }
    }
}

/// What decoding found.
#[derive(Debug)]
pub(crate) struct Decoded {
    pub(crate) contents: Contents,
    pub(crate) rows: ArchiveRows,
    pub(crate) blocks: Blocks,
}

/// Two pg_restore that read the same bytes: one lists the table of contents and is done after the archive's head, the
/// other decodes all rows, which are counted. The blocks of the tables are found in the framing meanwhile.
pub(crate) struct Decoder {
    blocks: BlockReader,
    list: Running,
    list_input: Option<ChildStdin>,
    contents: JoinHandle<io::Result<Contents>>,
    rows: RowDecoder,
}

/// The one that decodes all rows.
struct RowDecoder {
    program: Running,
    input: Option<ChildStdin>,
    found: JoinHandle<Result<ArchiveRows, String>>,
}

impl Decoder {
    pub(crate) fn start(tools: &ClientTools) -> Result<Self, ToolError> {
        let mut list = tools.start("pg_restore", ["--format=custom", "--list"], None, true, true)?;
        let contents = tokio::spawn(read_contents(list.output.take()));
        let list_input = list.input.take();
        Ok(Self { blocks: BlockReader::default(), list, list_input, contents, rows: RowDecoder::start(tools)? })
    }

    /// Feeds both; waits while they are busy. An error means that the archive does not decode.
    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        self.blocks.read(bytes)?;
        if let Some(input) = &mut self.list_input {
            // It reads the head only, and says so by closing its input.
            if input.write_all(bytes).await.is_err() {
                self.list_input = None;
            }
        }
        self.rows.write(bytes).await
    }

    /// Ends the archive and waits for both.
    pub(crate) async fn finish(mut self) -> Result<Decoded, DecodeError> {
        drop((self.list_input.take(), self.rows.input.take()));
        let contents = self.contents.await;
        // Exit statuses first: the output of a failed program means nothing.
        self.list.wait().await?;
        let contents = match contents {
            Ok(Ok(contents)) => contents,
            Ok(Err(error)) => return Err(self.list.pipe_error(error).into()),
            Err(error) => return Err(self.list.pipe_error(io::Error::other(error)).into()),
        };
        let mut rows = self.rows.finish().await?;
        let blocks = self.blocks.finish()?;
        rows.by_entry(&blocks);
        Ok(Decoded { contents, rows, blocks })
    }
}

impl RowDecoder {
    fn start(tools: &ClientTools) -> Result<Self, ToolError> {
        let arguments = ["--format=custom", "--data-only", "--file=-"];
        let mut program = tools.start("pg_restore", arguments, None, true, true)?;
        let found = tokio::spawn(read_rows(program.output.take()));
        let input = program.input.take();
        Ok(Self { program, input, found })
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let Some(input) = &mut self.input else { return Ok(()) };
        let Err(error) = input.write_all(bytes).await else { return Ok(()) };
        if error.kind() != io::ErrorKind::BrokenPipe {
            return Err(self.program.pipe_error(error).into());
        }
        self.input = None;
        self.program.wait().await?;
        Err(self.program.unread().into())
    }

    async fn finish(mut self) -> Result<ArchiveRows, DecodeError> {
        let found = self.found.await;
        // As for the table of contents.
        self.program.wait().await?;
        match found {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(problem)) => Err(DecodeError::Script(problem)),
            Err(error) => Err(self.program.pipe_error(io::Error::other(error)).into()),
        }
    }
}

async fn read_contents(output: Option<ChildStdout>) -> io::Result<Contents> {
    let mut reader = ContentsReader::default();
    if let Some(mut output) = output {
        let mut piece = vec![0; 16 * 1024];
        loop {
            match output.read(&mut piece).await? {
                0 => break,
                size => reader.read(&piece[..size]),
            }
        }
    }
    Ok(reader.finish())
}

async fn read_rows(output: Option<ChildStdout>) -> Result<ArchiveRows, String> {
    let mut reader = RowReader::default();
    let mut problem = None;
    if let Some(mut output) = output {
        let mut piece = vec![0; 64 * 1024];
        loop {
            match output.read(&mut piece).await.map_err(|error| error.to_string())? {
                0 => break,
                // Read on after a problem: pg_restore's own error is the more useful one.
                size if problem.is_none() => problem = reader.read(&piece[..size]).err(),
                _ => {}
            }
        }
    }
    match problem {
        Some(problem) => Err(problem.to_string()),
        None => reader.finish().map_err(|error| error.to_string()),
    }
}
