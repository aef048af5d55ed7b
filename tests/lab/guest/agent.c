/* A guest agent for lab guests: as much of QEMU's as libvirt asks for, over the port `org.qemu.guest_agent.0`. Beside that
 * it knows `lab-mute` (answers this and nothing after it) and `lab-quit` (answers, and ends). Does nothing where the machine
 * has no such port. usage: agent */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#define PORT "org.qemu.guest_agent.0"
static const char *const commands[] = {"guest-sync", "guest-sync-delimited", "guest-ping", "guest-info",
                                       "guest-get-time", "guest-shutdown", "lab-mute", "lab-quit"};
#define COMMANDS (sizeof commands / sizeof *commands)

/* Opens the device of the port. Its name is in sysfs; devtmpfs makes /dev/vportNpM, and there is no udev here. */
static int open_port(void) {
  DIR *ports = opendir("/sys/class/virtio-ports");
  if (!ports) return -1;
  int fd = -1;
  for (struct dirent *entry; fd < 0 && (entry = readdir(ports));) {
    char path[300], name[sizeof PORT] = "";
    snprintf(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name);
    int file = open(path, O_RDONLY);
    if (file < 0) continue;
    if (read(file, name, sizeof name - 1) > 0 && !strcmp(name, PORT)) {
      snprintf(path, sizeof path, "/dev/%s", entry->d_name);
      fd = open(path, O_RDWR);
    }
    close(file);
  }
  closedir(ports);
  return fd;
}

/* Whether a request is for this command: its name stands in quotes. */
static int asks(const char *request, const char *command) {
  char quoted[64];
  snprintf(quoted, sizeof quoted, "\"%s\"", command);
  return strstr(request, quoted) != 0;
}

/* Writes the answer to a request; its length. */
static int answer(const char *request, char *to, size_t size, int *last) {
  const char *id = strstr(request, "\"id\"");
  unsigned long long number = 0;
  if (id) sscanf(id, "\"id\" : %llu", &number);
  if (asks(request, "guest-sync-delimited")) return snprintf(to, size, "\xff{\"return\": %llu}\n", number);
  if (asks(request, "guest-sync")) return snprintf(to, size, "{\"return\": %llu}\n", number);
  if (asks(request, "guest-ping")) return snprintf(to, size, "{\"return\": {}}\n");
  if (asks(request, "guest-get-time")) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return snprintf(to, size, "{\"return\": %lld}\n", now.tv_sec * 1000000000ll + now.tv_nsec);
  }
  if (asks(request, "guest-info")) {
    int n = snprintf(to, size, "{\"return\": {\"version\": \"lab\", \"supported_commands\": [");
    for (size_t i = 0; i < COMMANDS; i++)
      n += snprintf(to + n, size - n, "%s{\"name\": \"%s\", \"enabled\": true, \"success-response\": %s}", i ? ", " : "",
                    commands[i], strcmp(commands[i], "guest-shutdown") ? "true" : "false");
    return n + snprintf(to + n, size - n, "]}}\n");
  }
  if (asks(request, "lab-mute") || asks(request, "lab-quit")) {
    *last = 1;
    return snprintf(to, size, "{\"return\": {}}\n");
  }
  if (asks(request, "guest-shutdown")) {
    /* As the real one does: no answer where it succeeds. */
    reboot(asks(request, "reboot") ? RB_AUTOBOOT : RB_POWER_OFF);
    return snprintf(to, size, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"%s\"}}\n", strerror(errno));
  }
  return snprintf(to, size, "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"this command is not known\"}}\n");
}

int main(void) {
  int fd = -1, last = 0;
  /* The ports are announced a moment after the driver is there. */
  for (int i = 0; i < 200 && (fd = open_port()) < 0; i++) usleep(50000);
  if (fd < 0) return 0;
  char line[4096], reply[2048], c;
  size_t length = 0;
  for (;;) {
    struct pollfd port = {.fd = fd, .events = POLLIN};
    if (poll(&port, 1, -1) < 0) continue;
    /* While nobody has the host's side open, poll reports a hang-up and read the end of the file. */
    if (port.revents & POLLHUP || read(fd, &c, 1) != 1) {
      length = 0;
      usleep(20000);
      continue;
    }
    if (c != '\n') {
      /* 0xff before a request tells that what stood before it is void. */
      if ((unsigned char)c == 0xff)
        length = 0;
      else if (length < sizeof line - 1)
        line[length++] = c;
      continue;
    }
    line[length] = 0;
    length = 0;
    if (last || !strchr(line, '{')) continue;
    int size = answer(line, reply, sizeof reply, &last);
    if (write(fd, reply, size) != size) usleep(20000);
    if (last && asks(line, "lab-quit")) return 0;
  }
}
