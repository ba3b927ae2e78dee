//! The `peftml` command.

fn main() -> std::process::ExitCode {
    peftml_experiments::cli::main()
}
