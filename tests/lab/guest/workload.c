/* What a lab guest does: writes its memory at a set rate, prints a heartbeat at a set interval, writes numbered blocks to
 * a disk. usage: workload DIRTY_MIB RATE_MIB_S HEARTBEAT_MS [DISK DISK_RATE_KIB_S] */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define MAGIC 0x4452564Du

static uint64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000ull + t.tv_nsec / 1000;
}

static uint64_t argument(int argc, char **argv, int i, uint64_t otherwise) {
  return argc > i ? strtoull(argv[i], 0, 0) : otherwise;
}

int main(int argc, char **argv) {
  uint64_t mib = argument(argc, argv, 1, 0), rate = argument(argc, argv, 2, 0), beat_ms = argument(argc, argv, 3, 100);
  const char *disk = argc > 4 ? argv[4] : 0;
  uint64_t disk_rate = argument(argc, argv, 5, 0);
  uint64_t pages = (mib << 20) / PAGE;
  volatile uint64_t *memory = 0;
  if (pages) {
    memory = mmap(0, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) {
      perror("mmap");
      return 1;
    }
    /* No page is zero or like another, so a migration cannot send less than it should. */
    uint64_t x = 88172645463325252ull;
    for (uint64_t i = 0; i < pages * (PAGE / 8); i += 8) {
      x ^= x << 13;
      x ^= x >> 7;
      x ^= x << 17;
      memory[i] = x;
    }
  }
  int fd = -1;
  char *block = 0;
  uint64_t disk_size = 0, disk_offset = 0, disk_number = 0;
  if (disk && disk_rate) {
    fd = open(disk, O_RDWR | O_DIRECT | O_DSYNC);
    if (fd < 0) {
      perror(disk);
    } else {
      disk_size = lseek(fd, 0, SEEK_END);
      if (posix_memalign((void **)&block, PAGE, PAGE)) return 1;
    }
  }
  uint64_t start = now_us(), last = start, next_beat = start, beat = 0;
  uint64_t memory_due = 0, disk_due = 0, page = 0, generation = 1;
  printf("READY mib=%lu rate=%lu disk=%lu\n", (unsigned long)mib, (unsigned long)rate, (unsigned long)disk_size);
  fflush(stdout);
  for (;;) {
    uint64_t now = now_us(), passed = now - last;
    last = now;
    if (passed > 200000) passed = 200000; /* do not catch up on a pause */
    memory_due += passed * rate * 256;    /* pages, times a million */
    while (memory_due >= 1000000 && pages) {
      memory_due -= 1000000;
      memory[page * (PAGE / 8)] = ++generation;
      if (++page == pages) page = 0;
    }
    if (fd >= 0) {
      disk_due += passed * disk_rate;
      while (disk_due >= 4000000) {
        disk_due -= 4000000;
        memset(block, 0, PAGE);
        ((uint64_t *)block)[0] = MAGIC;
        ((uint64_t *)block)[1] = ++disk_number;
        ((uint64_t *)block)[2] = disk_offset;
        if (pwrite(fd, block, PAGE, disk_offset) != PAGE) perror("pwrite");
        disk_offset += PAGE;
        if (disk_offset + PAGE > disk_size) disk_offset = 0;
      }
    }
    if (now >= next_beat) {
      printf("HB %lu t=%lu d=%lu\n", (unsigned long)beat++, (unsigned long)((now - start) / 1000),
             (unsigned long)disk_number);
      fflush(stdout);
      next_beat += beat_ms * 1000;
      if (next_beat < now) next_beat = now + beat_ms * 1000;
    }
    usleep(4000);
  }
}
