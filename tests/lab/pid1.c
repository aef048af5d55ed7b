/* PID 1 of a lab host: runs argv[1..] once, then reaps orphans until it is killed. */
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

static void leave(int signal_number) {
  (void)signal_number;
  _exit(0);
}

int main(int argc, char **argv) {
  if (argc < 2) return 64;
  signal(SIGTERM, leave);
  signal(SIGINT, SIG_IGN);
  if (fork() == 0) {
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    _exit(127);
  }
  for (;;) {
    int status;
    if (wait(&status) < 0) pause(); /* no child: sleep until a signal */
  }
}
