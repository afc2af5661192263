/* Counts the calls of a process that touch a folder, and lets one of them go wrong. Loaded with LD_PRELOAD.

   What glibc and the kernel do is done by them; a plan only says which call is the one, and what happens there. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum action { WATCH, KILL, TEAR, FAIL, FAIL_FROM, FULL_FROM, FLIP, SHORTEN };

#define MOST 4096
static char folder[PATH_MAX], calls[MOST][512];
static enum action action;
static int number;
static long at, count;
int can_exchange = 1; /* whether the file system can */

/* What Python calls: the folder to watch, what to do, the error number, and at which call. */
void plan(const char *watched, int what, int error, long when) {
    count = 0;
    at = when;
    action = what;
    number = error;
    strncpy(folder, watched, sizeof folder - 1);
}

long counted(void) { return count < MOST ? count : MOST; }
const char *call(long index) { return calls[index]; }

/* Write the path of a call that touches the folder, from there on, and tell whether it does. */
static int is_watched(int directory, const char *path, char *full, size_t size) {
    char link[64];
    ssize_t length = 0;
    if (!folder[0]) return 0;
    if (path == NULL || path[0] != '/') {
        snprintf(link, sizeof link, directory == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", directory);
        length = readlink(link, full, PATH_MAX);
        if (length < 0) return 0;
        full[length++] = '/';
    }
    snprintf(full + length, size - length, "%s/", path == NULL ? "" : path);
    size_t prefix = strlen(folder);
    if (strncmp(full, folder, prefix) != 0 || full[prefix] != '/') return 0;
    memmove(full, full + prefix + 1, strlen(full + prefix));
    for (size_t end = strlen(full); end > 0 && full[end - 1] == '/'; end--) full[end - 1] = 0;
    return 1;
}

/* Count a call, and return the error that it shall fail with, or 0; a process that shall die here does. */
static int strike(const char *name, int directory, const char *path) {
    char full[2 * PATH_MAX];
    if (!is_watched(directory, path, full, sizeof full)) return 0;
    long mine = __atomic_fetch_add(&count, 1, __ATOMIC_SEQ_CST);
    if (mine < MOST) snprintf(calls[mine], sizeof calls[mine], "%s %.480s", name, full);
    int takes_room = !strcmp(name, "write") || !strcmp(name, "create") || !strcmp(name, "mkdir") ||
                     !strcmp(name, "fsync") || !strcmp(name, "ftruncate");
    if (action == KILL && mine == at) kill(getpid(), SIGKILL);
    if ((action == FAIL && mine == at) || (action == FAIL_FROM && mine >= at) ||
        (action == FULL_FROM && mine >= at && takes_room))
        return number;
    return 0;
}

#define REAL(type, name, ...)                                                    \
    static type (*real)(__VA_ARGS__);                                            \
    if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name);
#define FAIL_IF(condition)                                                       \
    do {                                                                         \
        int error = (condition);                                                 \
        if (error) { errno = error; return -1; }                                 \
    } while (0)

#define OPENAT(function)                                                         \
    int function(int directory, const char *path, int flags, ...) {              \
        REAL(int, #function, int, const char *, int, ...)                        \
        va_list rest;                                                            \
        va_start(rest, flags);                                                   \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;  \
        va_end(rest);                                                            \
        FAIL_IF(strike(flags & O_CREAT ? "create" : "open", directory, path));   \
        return real(directory, path, flags, mode);                               \
    }
#define OPEN(function)                                                           \
    int function(const char *path, int flags, ...) {                             \
        REAL(int, #function, const char *, int, ...)                             \
        va_list rest;                                                            \
        va_start(rest, flags);                                                   \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;  \
        va_end(rest);                                                            \
        FAIL_IF(strike(flags & O_CREAT ? "create" : "open", AT_FDCWD, path));    \
        return real(path, flags, mode);                                          \
    }
OPENAT(openat)
OPENAT(openat64)
OPEN(open)
OPEN(open64)

ssize_t read(int fd, void *buffer, size_t size) {
    REAL(ssize_t, "read", int, void *, size_t)
    FAIL_IF(strike("read", fd, NULL));
    return real(fd, buffer, size);
}

ssize_t write(int fd, const void *buffer, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t)
    long mine = count;
    FAIL_IF(strike("write", fd, NULL));
    if (count == mine) return real(fd, buffer, size); /* not watched */
    if (action == SHORTEN && size > 1) return real(fd, buffer, size - size / 2);
    if (mine != at || size == 0) return real(fd, buffer, size);
    if (action == TEAR) {
        real(fd, buffer, size / 2);
        kill(getpid(), SIGKILL);
    }
    if (action == FLIP) {
        char flipped[1 << 16];
        size = size < sizeof flipped ? size : sizeof flipped;
        memcpy(flipped, buffer, size);
        flipped[size / 2] ^= 4;
        return real(fd, flipped, size);
    }
    return real(fd, buffer, size);
}

int fsync(int fd) {
    REAL(int, "fsync", int)
    FAIL_IF(strike("fsync", fd, NULL));
    return real(fd);
}

int ftruncate64(int fd, off64_t size) {
    REAL(int, "ftruncate64", int, off64_t)
    FAIL_IF(strike("ftruncate", fd, NULL));
    return real(fd, size);
}

int ftruncate(int fd, off_t size) {
    REAL(int, "ftruncate", int, off_t)
    FAIL_IF(strike("ftruncate", fd, NULL));
    return real(fd, size);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t)
    FAIL_IF(strike("mkdir", AT_FDCWD, path));
    return real(path, mode);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *)
    FAIL_IF(strike("rename", AT_FDCWD, from));
    return real(from, to);
}

int renameat2(int from_directory, const char *from, int to_directory, const char *to, unsigned flags) {
    REAL(int, "renameat2", int, const char *, int, const char *, unsigned)
    FAIL_IF(can_exchange ? 0 : EINVAL);
    FAIL_IF(strike("exchange", from_directory, from));
    return real(from_directory, from, to_directory, to, flags);
}

int unlink(const char *path) {
    REAL(int, "unlink", const char *)
    FAIL_IF(strike("unlink", AT_FDCWD, path));
    return real(path);
}

int unlinkat(int directory, const char *path, int flags) {
    REAL(int, "unlinkat", int, const char *, int)
    FAIL_IF(strike("unlink", directory, path));
    return real(directory, path, flags);
}

int rmdir(const char *path) {
    REAL(int, "rmdir", const char *)
    FAIL_IF(strike("unlink", AT_FDCWD, path));
    return real(path);
}
