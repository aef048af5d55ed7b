//! The command line: arguments as typed, settings, one file for each command, exit codes.
