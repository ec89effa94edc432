// Loaded before libc, so that the gateway's hash seeds and ids are the same in each run that counts instructions.
// For that alone: nothing made with these numbers is secret.
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

static uint64_t state = 0x9e3779b97f4a7c15;

static void fill(unsigned char *bytes, size_t count) {
  for (size_t i = 0; i < count; i++) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    bytes[i] = (unsigned char)(state >> 32);
  }
}

ssize_t getrandom(void *bytes, size_t count, unsigned flags) {
  (void)flags;
  fill(bytes, count);
  return (ssize_t)count;
}

int getentropy(void *bytes, size_t count) {
  fill(bytes, count);
  return 0;
}
