"""Load and faults: `serving.local` over gRPC beside the same model without gRPC, in C, and beside what one would build otherwise."""
