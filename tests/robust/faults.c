/* Faults at will, in every process that is started with this in LD_PRELOAD and FAULTS=FILE in its environment.
 *
 * Every call that changes files below $FAULTS_ROOT is a point: it is numbered over all processes, written to FILE.trace
 * (`number operation path`), and at or after a chosen number it fails as the plan in FILE says (see faults.py, which
 * writes it). A write that is interrupted has written half. What libc does inside itself (a FILE's own buffer) is seen
 * where it is asked for: fwrite.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NONE, KILL_ALL, KILL_ONE, FULL, DENIED, ELSEWHERE /* and higher: faults.py kills something else meanwhile */ };
enum { ALLOCATES = 1, NAMES = 2 }; /* what a full disk refuses, what missing permissions refuse */

struct plan {
    _Atomic long mode, at, count, fired;
};

static struct plan *plan;
static const char *root;
static char trace[PATH_MAX];

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("FAULTS");
    root = getenv("FAULTS_ROOT");
    if (!name || !root) return;
    int file = syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC, 0);
    if (file < 0) return;
    void *at = mmap(NULL, sizeof *plan, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    if (at == MAP_FAILED) return;
    snprintf(trace, sizeof trace, "%s.trace", name);
    plan = at;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* The absolute path of `name` in folder `at` (of the open file `at` itself without a name); "" outside the root. */
static const char *below_root(int at, const char *name, char *path) {
    char folder[PATH_MAX] = "", link[64];
    if (!plan) return "";
    if (!name || name[0] != '/') {
        if (at == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t size = syscall(SYS_readlinkat, AT_FDCWD, link, folder, sizeof folder - 1);
        if (size < 0) return "";
        folder[size] = 0;
    }
    if (!name) snprintf(path, PATH_MAX, "%s", folder);
    else if (name[0] == '/') snprintf(path, PATH_MAX, "%s", name);
    else if (snprintf(path, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX) return "";
    return strncmp(path, root, strlen(root)) ? "" : path;
}

static void die(void) {
    if (plan->mode == KILL_ONE) raise(SIGKILL);
    for (;;) pause(); /* faults.py kills all of them */
}

/* Counts a point: 0 to go on, 1 to be cut short (write half, then die), -1 to fail with errno set. */
static int point(const char *operation, int refused, int at, const char *name) {
    char path[PATH_MAX], line[PATH_MAX + 64];
    int saved = errno;
    if (!*below_root(at, name, path)) return errno = saved, 0;
    if (plan->mode == KILL_ALL && plan->fired) die();
    long number = atomic_fetch_add(&plan->count, 1) + 1;
    int size = snprintf(line, sizeof line, "%ld %s %s\n", number, operation, path);
    int file = syscall(SYS_openat, AT_FDCWD, trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file >= 0) {
        syscall(SYS_write, file, line, size);
        syscall(SYS_close, file);
    }
    errno = saved;
    if (plan->mode == KILL_ALL || plan->mode == KILL_ONE) {
        if (number != plan->at) return 0;
        plan->fired = number;
        return 1;
    }
    if (plan->mode >= ELSEWHERE) {
        if (number != plan->at) return 0;
        plan->fired = number;
        while (plan->mode != NONE) usleep(1000);
        return errno = saved, 0;
    }
    if (plan->mode == NONE || number < plan->at) return 0;
    if (plan->mode == FULL ? !(refused & ALLOCATES) : !(refused & NAMES)) return 0;
    if (!plan->fired) plan->fired = number;
    errno = plan->mode == FULL ? ENOSPC : EACCES;
    return -1;
}

#define GUARD(operation, refused, at, name, failure)         \
    switch (point(operation, refused, at, name)) {           \
    case 1: die(); /* fallthrough */                         \
    case -1: return failure;                                 \
    }

static int opening(int at, const char *name, int flags) {
    return flags & (O_CREAT | O_TRUNC) ? point("open", ALLOCATES | NAMES, at, name) : 0;
}

#define OPEN(symbol, at_parameter, at)                                                     \
    int symbol(at_parameter const char *name, int flags, ...) {                            \
        va_list list;                                                                      \
        va_start(list, flags);                                                             \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0;            \
        va_end(list);                                                                      \
        switch (opening(at, name, flags)) {                                                \
        case 1: die(); /* fallthrough */                                                   \
        case -1: return -1;                                                                \
        }                                                                                  \
        return syscall(SYS_openat, at, name, flags, mode);                                 \
    }
#define NO_FOLDER
#define FOLDER int folder,
OPEN(open, NO_FOLDER, AT_FDCWD)
OPEN(open64, NO_FOLDER, AT_FDCWD)
OPEN(openat, FOLDER, folder)
OPEN(openat64, FOLDER, folder)

#define FOPEN(symbol)                                                             \
    FILE *symbol(const char *name, const char *mode) {                            \
        if (*mode != 'r') GUARD("open", ALLOCATES | NAMES, AT_FDCWD, name, NULL)  \
        return REAL(symbol)(name, mode);                                          \
    }
FOPEN(fopen)
FOPEN(fopen64)

ssize_t write(int file, const void *data, size_t size) {
    switch (point("write", ALLOCATES, file, NULL)) {
    case 1: syscall(SYS_write, file, data, size / 2); die(); /* fallthrough */
    case -1: return -1;
    }
    return syscall(SYS_write, file, data, size);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    GUARD("write", ALLOCATES, file, NULL, -1)
    return syscall(SYS_writev, file, parts, count);
}

#define PWRITE(symbol)                                                               \
    ssize_t symbol(int file, const void *data, size_t size, off_t offset) {          \
        switch (point("write", ALLOCATES, file, NULL)) {                             \
        case 1: syscall(SYS_pwrite64, file, data, size / 2, offset); die();          \
            /* fallthrough */                                                        \
        case -1: return -1;                                                          \
        }                                                                            \
        return syscall(SYS_pwrite64, file, data, size, offset);                      \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    __typeof__(&fwrite) real = REAL(fwrite);
    switch (plan ? point("write", ALLOCATES, fileno(file), NULL) : 0) {
    case 1: real(data, size, count / 2, file); fflush(file); die(); /* fallthrough */
    case -1: return 0;
    }
    return real(data, size, count, file);
}

#define SENDFILE(symbol)                                                    \
    ssize_t symbol(int to, int from, off_t *offset, size_t size) {          \
        switch (point("write", ALLOCATES, to, NULL)) {                      \
        case 1: size = size > 4096 ? 4096 : size / 2;                       \
            syscall(SYS_sendfile, to, from, offset, size); die();           \
            /* fallthrough */                                               \
        case -1: return -1;                                                 \
        }                                                                   \
        return syscall(SYS_sendfile, to, from, offset, size);               \
    }
SENDFILE(sendfile)
SENDFILE(sendfile64)

ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t size, unsigned flags) {
    GUARD("write", ALLOCATES, to, NULL, -1)
    return syscall(SYS_copy_file_range, from, from_at, to, to_at, size, flags);
}

#define FALLOCATE(symbol)                                            \
    int symbol(int file, int mode, off_t offset, off_t size) {       \
        GUARD("allocate", ALLOCATES, file, NULL, -1)                 \
        return syscall(SYS_fallocate, file, mode, offset, size);     \
    }
FALLOCATE(fallocate)
FALLOCATE(fallocate64)

#define FTRUNCATE(symbol)                                \
    int symbol(int file, off_t size) {                   \
        GUARD("truncate", ALLOCATES, file, NULL, -1)     \
        return syscall(SYS_ftruncate, file, size);       \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

int fsync(int file) {
    GUARD("sync", ALLOCATES, file, NULL, -1)
    return syscall(SYS_fsync, file);
}

int renameat2(int from, const char *old, int to, const char *new, unsigned flags) {
    GUARD("rename", NAMES, to, new, -1)
    return syscall(SYS_renameat2, from, old, to, new, flags);
}

int renameat(int from, const char *old, int to, const char *new) { return renameat2(from, old, to, new, 0); }

int rename(const char *old, const char *new) { return renameat2(AT_FDCWD, old, AT_FDCWD, new, 0); }

int unlinkat(int at, const char *name, int flags) {
    GUARD(flags & AT_REMOVEDIR ? "rmdir" : "unlink", NAMES, at, name, -1)
    return syscall(SYS_unlinkat, at, name, flags);
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }

int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdirat(int at, const char *name, mode_t mode) {
    GUARD("mkdir", ALLOCATES | NAMES, at, name, -1)
    return syscall(SYS_mkdirat, at, name, mode);
}

int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }

int linkat(int from, const char *old, int to, const char *new, int flags) {
    GUARD("link", ALLOCATES | NAMES, to, new, -1)
    return syscall(SYS_linkat, from, old, to, new, flags);
}

int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int symlinkat(const char *target, int at, const char *name) {
    GUARD("symlink", ALLOCATES | NAMES, at, name, -1)
    return syscall(SYS_symlinkat, target, at, name);
}

int symlink(const char *target, const char *name) { return symlinkat(target, AT_FDCWD, name); }

int fchmod(int file, mode_t mode) {
    GUARD("chmod", NAMES, file, NULL, -1)
    return syscall(SYS_fchmod, file, mode);
}

int chmod(const char *name, mode_t mode) {
    GUARD("chmod", NAMES, AT_FDCWD, name, -1)
    return syscall(SYS_fchmodat, AT_FDCWD, name, mode);
}
