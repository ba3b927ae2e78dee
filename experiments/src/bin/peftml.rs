//! The `peftml` command.

// Training steps make and drop tensors of many megabytes; the system's allocator gives that memory back to
// the kernel every time and takes it again page by page.
#[cfg(feature = "networks")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    peftml_experiments::cli::main()
}
