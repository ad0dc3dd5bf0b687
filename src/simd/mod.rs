//! Byte kernels: where the separators of a block stand. The only unsafe code of the program.
