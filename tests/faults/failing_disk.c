/* A disk that fails, for programs of any language: loaded with LD_PRELOAD, it stands before the functions of the C library
 * that open files for writing, write, sync, close, rename and make folders.  `limner_fail(below, place, error)` lets those
 * below a folder fail from number `place` on; a close fails only when it is that very one, as on a network file system.
 *
 *     cc -shared -fPIC -o failing_disk.so failing_disk.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char root[PATH_MAX];
static long from = -1, seen = 0;
static int number = 0;
static unsigned char ours[1 << 16]; /* descriptors of files below the folder */

void limner_fail(const char *below, long place, int error) {
    strncpy(root, below, sizeof root - 1);
    from = place, number = error, seen = 0;
}
long limner_seen(void) { return seen; }

static int below(const char *path) { return root[0] && path && strncmp(path, root, strlen(root)) == 0; }
static int own(int fd) { return root[0] && fd >= 0 && fd < (1 << 16) && ours[fd]; }
static int fails(void) {
    if (seen++ < from) return 0;
    errno = number;
    return 1;
}
#define REAL(name) static __typeof__(&name) real; if (!real) real = dlsym(RTLD_NEXT, #name)
#define WRITES(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT))
#define MODE(flags) mode_t mode = 0; if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, int); va_end(more); }
#define OPENED(call) int fd = (call); if (fd >= 0 && fd < (1 << 16)) ours[fd] = writing; return fd

int open(const char *path, int flags, ...) { REAL(open); MODE(flags) int writing = WRITES(flags) && below(path); if (writing && fails()) return -1; OPENED(real(path, flags, mode)); }
int open64(const char *path, int flags, ...) { REAL(open64); MODE(flags) int writing = WRITES(flags) && below(path); if (writing && fails()) return -1; OPENED(real(path, flags, mode)); }
int openat(int dir, const char *path, int flags, ...) { REAL(openat); MODE(flags) int writing = WRITES(flags) && below(path); if (writing && fails()) return -1; OPENED(real(dir, path, flags, mode)); }
int openat64(int dir, const char *path, int flags, ...) { REAL(openat64); MODE(flags) int writing = WRITES(flags) && below(path); if (writing && fails()) return -1; OPENED(real(dir, path, flags, mode)); }
ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (!own(fd)) return real(fd, data, size);
    if (!fails()) return real(fd, data, size);
    if (number == ENOSPC && size > 1 && seen - 1 == from) return real(fd, data, size / 2); /* the rest of the disk */
    errno = number;
    return -1;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { REAL(pwrite); if (own(fd) && fails()) return -1; return real(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { REAL(pwrite64); if (own(fd) && fails()) return -1; return real(fd, data, size, at); }
ssize_t writev(int fd, const struct iovec *parts, int count) { REAL(writev); if (own(fd) && fails()) return -1; return real(fd, parts, count); }
ssize_t sendfile(int to, int source, off_t *at, size_t size) { REAL(sendfile); if (own(to) && fails()) return -1; return real(to, source, at, size); }
ssize_t sendfile64(int to, int source, off64_t *at, size_t size) { REAL(sendfile64); if (own(to) && fails()) return -1; return real(to, source, at, size); }
ssize_t copy_file_range(int source, off64_t *a, int to, off64_t *b, size_t size, unsigned flags) { REAL(copy_file_range); if (own(to) && fails()) return -1; return real(source, a, to, b, size, flags); }
int ftruncate(int fd, off_t size) { REAL(ftruncate); if (own(fd) && fails()) return -1; return real(fd, size); }
int ftruncate64(int fd, off64_t size) { REAL(ftruncate64); if (own(fd) && fails()) return -1; return real(fd, size); }
int fsync(int fd) { REAL(fsync); if (own(fd) && fails()) return -1; return real(fd); }
int fdatasync(int fd) { REAL(fdatasync); if (own(fd) && fails()) return -1; return real(fd); }
int close(int fd) {
    REAL(close);
    int was = own(fd), failing = was && seen == from;
    if (was) ours[fd] = 0, seen++;
    int result = real(fd);
    if (failing) { errno = number; return -1; }
    return result;
}
int rename(const char *old, const char *new) { REAL(rename); if (below(new) && fails()) return -1; return real(old, new); }
int renameat(int a, const char *old, int b, const char *new) { REAL(renameat); if (below(new) && fails()) return -1; return real(a, old, b, new); }
int renameat2(int a, const char *old, int b, const char *new, unsigned flags) { REAL(renameat2); if (below(new) && fails()) return -1; return real(a, old, b, new, flags); }
int mkdir(const char *path, mode_t mode) { REAL(mkdir); if (below(path) && fails()) return -1; return real(path, mode); }
int mkdirat(int dir, const char *path, mode_t mode) { REAL(mkdirat); if (below(path) && fails()) return -1; return real(dir, path, mode); }
