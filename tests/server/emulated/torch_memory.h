// Makes LibTorch's memory on the CPU known to the emulator: what the decoder allocates on the
// device kind `emulated` is then what the emulated kernels may touch, and nothing else is. For
// programs of the tests that serve on emulated kernels; once, before the first tensor.
#ifndef STRUCTATTN_TESTS_SERVER_EMULATED_TORCH_MEMORY_H_
#define STRUCTATTN_TESTS_SERVER_EMULATED_TORCH_MEMORY_H_

namespace structattn {

// From now on every tensor is registered with the emulator while it lives, byte by byte as it was
// asked for, and full of NaN (0xff) at first: nothing may depend on memory that was not written.
void RegisterTorchMemory();

}  // namespace structattn

#endif  // STRUCTATTN_TESTS_SERVER_EMULATED_TORCH_MEMORY_H_
