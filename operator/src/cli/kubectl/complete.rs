//! Completion of arguments: scripts for shells, and what kubectl asks a plugin for.

use crate::cli::CommandError;
use clap::Command;
use clap_complete::Shell;
use std::io::Write;
use std::process::ExitCode;

/// Cobra's directive: do not offer files.
const NO_FILES: &str = ":4";

/// Options of `completion`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  pgrail completion bash > /etc/bash_completion.d/pgrail\n\n\
    Arguments of `kubectl pgrail` are completed by kubectl itself, which looks for `kubectl_complete-pgrail` in PATH.")]
pub(in crate::cli) struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script of a shell.
pub(in crate::cli) fn script(args: &CompletionArgs, command: &mut Command, name: &str) -> ExitCode {
    clap_complete::generate(args.shell, command, name, &mut std::io::stdout().lock());
    ExitCode::SUCCESS
}

/// Answers kubectl: a candidate in each line, and a directive at the end.
pub(super) fn kubectl(command: &Command, words: &[String]) -> Result<ExitCode, CommandError> {
    let mut out = std::io::stdout().lock();
    for (name, about) in candidates(command, words) {
        writeln!(out, "{name}\t{about}")?;
    }
    writeln!(out, "{NO_FILES}")?;
    Ok(ExitCode::SUCCESS)
}

/// What the last word can become, and what each of it means.
fn candidates(root: &Command, words: &[String]) -> Vec<(String, String)> {
    let Some((last, before)) = words.split_last() else { return Vec::new() };
    let mut command = root;
    for word in before {
        command = command.find_subcommand(word).unwrap_or(command);
    }
    let first_line = |text: Option<&clap::builder::StyledStr>| {
        text.map(ToString::to_string).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
    };
    let all: Vec<(String, String)> = if last.starts_with('-') {
        let flags = command.get_arguments().filter(|argument| !argument.is_hide_set());
        flags.filter_map(|it| Some((format!("--{}", it.get_long()?), first_line(it.get_help())))).collect()
    } else {
        let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
        commands.map(|it| (it.get_name().to_owned(), first_line(it.get_about()))).collect()
    };
    all.into_iter().filter(|(name, _)| name.starts_with(last.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Plugin;
    use super::*;
    use clap::CommandFactory;

    fn names(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(ToString::to_string).collect();
        candidates(&Plugin::command(), &words).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn commands_and_options_are_completed() {
        Plugin::command().debug_assert();
        assert_eq!(names(&["re"]), ["restore", "rehearse"]);
        assert!(names(&["exempt", "core", "--r"]).contains(&"--role".to_owned()));
        assert_eq!(names(&["status", "--all"]), ["--all-namespaces"]);
        assert!(names(&["status", ""]).is_empty(), "names of objects are not offered");
    }
}
