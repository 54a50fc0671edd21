/* The native helper: files of the site tree appear for whoever opens them in this process, C code too.
 *
 * Libraries call open(), fopen(), stat() and their like through slots of their own, which the dynamic
 * linker fills in (ELF gABI, "Global Offset Table"). scan() puts hooks of the same signature into those
 * slots, of every object that is loaded, and again whenever one was loaded since. A hook calls the
 * original first. Only when that says ENOENT, for a path in the site tree that the environment has, it
 * asks for the file and tries again. What makes, changes or lists looks first, or remembers. Paths elsewhere cost
 * a search for the tree's name when a call fails, or is one of those, and nothing otherwise.
 *
 * It asks another process, the filler (cloudimport/filler.py), which is started when it is
 * first needed, and waits for the answer with no lock of Python's taken or given away. For the caller
 * that is a slow disk, and nothing else: whether its thread holds the interpreter's lock, does not hold it,
 * or is none of Python's, whatever locks of its own it holds, no other thread gets to run that would not
 * have run under pip. Calling back into this interpreter could deadlock: with a caller that holds a lock
 * of its library, and a thread that holds the interpreter's lock and waits for the library's.
 *
 * What is not seen: openings by the dynamic linker itself (DT_NEEDED: the importer fills those before),
 * by constructors of a library that is being loaded, by code that makes system calls directly, and programs
 * that C code runs.
 */

#define _GNU_SOURCE
#define Py_LIMITED_API 0x030A0000
#define PY_SSIZE_T_CLEAN
/* The names of functions below are data; fortified inline versions would be in the way. */
#undef _FORTIFY_SOURCE
#include <Python.h>
#include <structmember.h>

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <link.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define R_SLOT R_X86_64_JUMP_SLOT
#define R_GLOB R_X86_64_GLOB_DAT
#define R_WORD R_X86_64_64
#elif defined(__aarch64__)
#define R_SLOT R_AARCH64_JUMP_SLOT
#define R_GLOB R_AARCH64_GLOB_DAT
#define R_WORD R_AARCH64_ABS64
#else
#error "the native helper knows x86-64 and aarch64"
#endif

/* ---- what is installed ---------------------------------------------------------------------- */

/* Made by install() and never freed, but for the index: a hook in another thread may look at it at any time. */
typedef struct {
    char *root;        /* the site tree's root, without a slash at the end */
    size_t root_size;
    char *mark;        /* the name of its folder, a digest: in every path into the tree, by whatever link */
    const char *name;  /* its last component, with the slash before it */
    char **argv;       /* the filler's command and environment */
    char **envp;
    int timeout;       /* milliseconds that one answer may take */
    PyObject *index;   /* bytes that hold the path of every file of the environment */
    const char *paths; /* what is in them, while this is what is installed */
    size_t paths_size;
} Config;

static _Atomic(Config *) config;
static _Atomic int readers; /* of its paths */

/* One request at a time; what follows belongs to whoever holds the lock. */
static pthread_mutex_t filler_lock = PTHREAD_MUTEX_INITIALIZER;
static int filler = -1;      /* a socket to the filler, -1 when there is none */
static int starting = -1;    /* its other end, while it is being started */
static uint64_t socket_id;   /* what it is known by: a program may close all descriptors, and open others */
static pid_t filler_pid;     /* if it is a child of this process, else 0 */
static Config *filler_of;    /* what it was started for */
static pid_t owner;          /* the process that started it */
static _Atomic uint64_t count_fills, count_requests, count_bytes;

/* Hashes of paths that the environment does not have: libraries look for the same ones again and again. */
static _Atomic uint64_t absent[1024];

/* ---- the originals -------------------------------------------------------------------------- */

static struct {
    int (*creat)(const char *, mode_t);
    int (*creat64)(const char *, mode_t);
    int (*open)(const char *, int, ...);
    int (*open64)(const char *, int, ...);
    int (*openat)(int, const char *, int, ...);
    int (*openat64)(int, const char *, int, ...);
    FILE *(*fopen)(const char *, const char *);
    FILE *(*fopen64)(const char *, const char *);
    FILE *(*freopen)(const char *, const char *, FILE *);
    FILE *(*freopen64)(const char *, const char *, FILE *);
    int (*stat)(const char *, void *);
    int (*stat64)(const char *, void *);
    int (*lstat)(const char *, void *);
    int (*lstat64)(const char *, void *);
    int (*fstatat)(int, const char *, void *, int);
    int (*fstatat64)(int, const char *, void *, int);
    int (*xstat)(int, const char *, void *);
    int (*xstat64)(int, const char *, void *);
    int (*lxstat)(int, const char *, void *);
    int (*lxstat64)(int, const char *, void *);
    int (*fxstatat)(int, int, const char *, void *, int);
    int (*fxstatat64)(int, int, const char *, void *, int);
    int (*statx)(int, const char *, int, unsigned int, void *);
    int (*access)(const char *, int);
    int (*faccessat)(int, const char *, int, int);
    ssize_t (*readlink)(const char *, char *, size_t);
    ssize_t (*readlinkat)(int, const char *, char *, size_t);
    int (*truncate)(const char *, off_t);
    int (*truncate64)(const char *, off64_t);
    int (*unlink)(const char *);
    int (*unlinkat)(int, const char *, int);
    int (*remove)(const char *);
    int (*rename)(const char *, const char *);
    int (*renameat)(int, const char *, int, const char *);
    int (*renameat2)(int, const char *, int, const char *, unsigned);
    int (*link)(const char *, const char *);
    int (*linkat)(int, const char *, int, const char *, int);
    int (*symlink)(const char *, const char *);
    int (*symlinkat)(const char *, int, const char *);
    int (*rmdir)(const char *);
    int (*mkdir)(const char *, mode_t);
    int (*mkdirat)(int, const char *, mode_t);
    int (*chmod)(const char *, mode_t);
    int (*fchmodat)(int, const char *, mode_t, int);
    int (*chown)(const char *, uid_t, gid_t);
    int (*utimensat)(int, const char *, void *, int);
    int (*utimes)(const char *, void *);
    int (*statvfs)(const char *, void *);
    int (*statvfs64)(const char *, void *);
    int (*euidaccess)(const char *, int);
    int (*eaccess)(const char *, int);
    DIR *(*opendir)(const char *);
    DIR *(*fdopendir)(int);
    int (*scandir)(const char *, struct dirent ***, void *, void *);
    int (*scandir64)(const char *, struct dirent64 ***, void *, void *);
    int (*ftw)(const char *, void *, int);
    int (*ftw64)(const char *, void *, int);
    int (*nftw)(const char *, void *, int, int);
    int (*nftw64)(const char *, void *, int, int);
    int (*glob)(const char *, int, void *, void *);
    int (*glob64)(const char *, int, void *, void *);
    char *(*realpath)(const char *, char *);
    char *(*canonicalize_file_name)(const char *);
    void *(*dlopen)(const char *, int);
    void *(*dlsym)(void *, const char *);
} real;

/* ---- which paths are ours ------------------------------------------------------------------- */

/* Write an absolute path to out, without "//", "/." and "/.."; returns its length, 0 if too long. */
static size_t normalised(const char *path, char *out, size_t room)
{
    size_t size = 0;
    while (*path) {
        while (*path == '/')
            path++;
        size_t part = strcspn(path, "/");
        if (part == 0)
            break;
        if (part == 2 && path[0] == '.' && path[1] == '.') {
            while (size && out[--size] != '/')
                ;
        } else if (!(part == 1 && path[0] == '.')) {
            if (size + part + 2 > room)
                return 0;
            out[size++] = '/';
            memcpy(out + size, path, part);
            size += part;
        }
        path += part;
    }
    out[size] = 0;
    return size;
}

/* What looking at a path takes: not on the stack, since threads and signal handlers have small ones, nor from
 * malloc(), which a signal handler may have interrupted. */
typedef struct {
    char full[PATH_MAX], plain[PATH_MAX], resolved[PATH_MAX], relative[PATH_MAX], other[PATH_MAX];
} Scratch;

static Scratch *new_scratch(void)
{
    void *made = mmap(NULL, sizeof(Scratch), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return made == MAP_FAILED ? NULL : made;
}

static void free_scratch(Scratch *s)
{
    if (s != NULL)
        munmap(s, sizeof *s);
}

/* Put the folder that relative paths begin in into out; returns its length, 0 if it cannot be told. */
static size_t folder_of(int dirfd, char *out, size_t room)
{
    char link[64];
    if (dirfd == AT_FDCWD)
        return getcwd(out, room) == NULL ? 0 : strlen(out);
    snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
    ssize_t got = real.readlink(link, out, room - 1);
    out[got > 0 ? got : 0] = 0;
    return got > 0 ? (size_t)got : 0;
}

__attribute__((noinline)) static int begins_in_tree(const Config *c, int dirfd)
{
    char folder[1024];
    int kept = errno;
    size_t size = folder_of(dirfd, folder, sizeof folder);
    int found = size ? size == sizeof folder - 1 || strstr(folder, c->mark) != NULL : errno == ERANGE;
    errno = kept;
    return found;
}

/* Whether a path may lead into the tree; almost all others end here. */
static inline int is_worth_a_look(const Config *c, int dirfd, const char *path)
{
    return c != NULL && path != NULL && (strstr(path, c->mark) != NULL || (*path != '/' && begins_in_tree(c, dirfd)));
}

/* Put the path relative to the root into s->relative ("" for itself); returns 0 if it is not in the tree. */
static int below_root(const Config *c, int dirfd, const char *path, Scratch *s)
{
    char *full = s->full, *plain = s->plain, *out = s->relative;
    if (path == NULL || *path == 0)
        return 0;
    if (*path != '/') {
        size_t size = folder_of(dirfd, full, PATH_MAX);
        if (size == 0 || size + strlen(path) + 2 > PATH_MAX)
            return 0;
        full[size] = '/';
        strcpy(full + size + 1, path);
        path = full;
    }
    if (strstr(path, c->mark) == NULL && path != full)
        return 0;
    if (normalised(path, plain, PATH_MAX) == 0)
        return 0;
    const char *tail = NULL;
    if (strncmp(plain, c->root, c->root_size) == 0) {
        tail = plain + c->root_size;
    } else {
        char *found = strstr(plain, c->mark);
        if (found == NULL)
            return 0;
        found += strlen(c->mark);
        size_t size = strlen(c->name);
        if (strncmp(found, c->name, size) != 0)
            return 0;
        found += size;
        char kept = *found;
        *found = 0;
        int same = real.realpath(plain, s->resolved) != NULL && strcmp(s->resolved, c->root) == 0;
        *found = kept;
        if (!same)
            return 0;
        tail = found;
    }
    if ((*tail != '/' && *tail != 0) || strlen(tail) >= PATH_MAX)
        return 0;
    strcpy(out, *tail ? tail + 1 : tail);
    return 1;
}

static uint64_t hash_of(const char *text, size_t size)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)text[i]) * 1099511628211u;
    return hash;
}

/* What this process has changed, removed or put there itself, which stays as it is: paths relative to the root.
 * Entries are only ever added. */
typedef struct Touched {
    struct Touched *next, *older;
    const Config *config;
    char path[];
} Touched;

static _Atomic(Touched *) touched[256], newest_touched;

static int is_touched(const Config *c, const char *relative, size_t size)
{
    for (Touched *at = atomic_load(&touched[hash_of(relative, size) % 256]); at != NULL; at = at->next)
        if (at->config == c && strncmp(at->path, relative, size) == 0 && at->path[size] == 0)
            return 1;
    return 0;
}

/* The same for what lies in a folder that was removed or moved away. */
static int is_in_touched(const Config *c, const char *relative)
{
    if (atomic_load(&newest_touched) == NULL)
        return 0;
    for (size_t size = 1; relative[size - 1]; size++)
        if ((relative[size] == '/' || relative[size] == 0) && is_touched(c, relative, size))
            return 1;
    return 0;
}

static void touch(const Config *c, const char *relative)
{
    size_t size = strlen(relative);
    if (size == 0 || is_touched(c, relative, size))
        return;
    Touched *made = malloc(sizeof *made + size + 1);
    if (made == NULL)
        return;
    made->config = c;
    memcpy(made->path, relative, size + 1);
    _Atomic(Touched *) *place = &touched[hash_of(relative, size) % 256];
    made->next = atomic_load(place);
    while (!atomic_compare_exchange_weak(place, &made->next, made))
        ;
    made->older = atomic_load(&newest_touched);
    while (!atomic_compare_exchange_weak(&newest_touched, &made->older, made))
        ;
}

/* Whether the environment may have a file or folder there that is to appear; in doubt it may. */
static int may_have(const Config *c, const char *relative)
{
    if (is_in_touched(c, relative))
        return 0;
    for (const unsigned char *at = (const unsigned char *)relative; *at; at++)
        if (*at < 0x20 || *at > 0x7e || *at == '"' || *at == '\\')
            return 1; /* it is written in another way in the index, which is JSON */
    uint64_t hash = hash_of(relative, strlen(relative)) ^ (uint64_t)(uintptr_t)c;
    if (atomic_load(&absent[hash % 1024]) == hash)
        return 0;
    atomic_fetch_add(&readers, 1);
    int installed = atomic_load(&config) == c;
    int found = installed && memmem(c->paths, c->paths_size, relative, strlen(relative)) != NULL;
    atomic_fetch_sub(&readers, 1);
    if (installed && !found)
        atomic_store(&absent[hash % 1024], hash);
    return found;
}

/* ---- asking the filler ---------------------------------------------------------------------- */

static long long milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Return what the kernel knows a socket by; 0 for what is none. */
static uint64_t id_of(int descriptor)
{
    struct stat found;
    return fstat(descriptor, &found) == 0 && S_ISSOCK(found.st_mode) ? (uint64_t)found.st_ino : 0;
}

static void stop_filler(void)
{
    if (filler >= 0 && id_of(filler) == socket_id)
        close(filler);
    filler = -1;
}

/* What the process between this one and the filler needs. */
typedef struct {
    const Config *config;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    pid_t pid;
    int failed; /* an errno, or -1: not known */
} Start;

static void spawn(Start *start)
{
    const Config *c = start->config;
    start->failed = posix_spawn(&start->pid, c->argv[0], &start->actions, &start->attributes, c->argv, c->envp);
}

static int spawn_between(void *start)
{
    spawn(start);
    _exit(0);
}

/* Start the filler, by a process between that ends at once: so this one has no child that it does not know of.
 * The one between shares this one's memory, as after vfork(), and sends no signal when it ends, so that
 * wait() does not see it either (clone(2), "The child termination signal"). Where orphans come to this process
 * itself (PID 1 of a container without an init) the filler ends when it has had nothing to do for a while; as
 * it does where there can be no such process, under user-mode emulation. */
static int start_filler(Config *c)
{
    const size_t room = 128 << 10;
    char spaces[2][64] = {"", ""};
    int ends[2];
    Start start = {.config = c, .failed = -1};
    sigset_t none;
    int adopts = 0;
    prctl(PR_GET_CHILD_SUBREAPER, &adopts);
    adopts = adopts || getpid() == 1;
    if (filler_pid > 0)
        waitpid(filler_pid, NULL, WNOHANG); /* an earlier one, which has ended */
    filler_pid = 0;
    if (real.readlink("/proc/self/ns/pid", spaces[0], sizeof spaces[0] - 1) > 0
        && real.readlink("/proc/self/ns/pid_for_children", spaces[1], sizeof spaces[1] - 1) > 0
        && strcmp(spaces[0], spaces[1]) != 0) {
        /* Its first process would be the one between, and the last one. */
        dprintf(2, "cloudimport: after unshare(CLONE_NEWPID) files cannot be fetched for C code\n");
        return -1;
    }
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
        return -1;
    for (int i = 0; i < 2; i++) { /* not among the standard descriptors, if those are closed */
        int moved = fcntl(ends[i], F_DUPFD_CLOEXEC, 3);
        close(ends[i]);
        ends[i] = moved;
    }
    filler = ends[0];
    socket_id = id_of(filler);
    starting = ends[1];
    sigemptyset(&none);
    posix_spawn_file_actions_init(&start.actions);
    posix_spawn_file_actions_adddup2(&start.actions, ends[1], 0);
    posix_spawn_file_actions_addopen(&start.actions, 1, "/dev/null", O_WRONLY, 0);
    if (fcntl(2, F_GETFD) < 0)
        posix_spawn_file_actions_addopen(&start.actions, 2, "/dev/null", O_WRONLY, 0);
    posix_spawnattr_init(&start.attributes);
    posix_spawnattr_setsigmask(&start.attributes, &none);
    posix_spawnattr_setflags(&start.attributes, POSIX_SPAWN_SETSIGMASK);
    char *stack = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    if (ends[0] >= 0 && ends[1] >= 0 && stack != MAP_FAILED) {
        pid_t between = clone(spawn_between, stack + room, CLONE_VM | CLONE_VFORK, &start);
        while (between > 0 && waitpid(between, NULL, __WCLONE) < 0 && errno == EINTR)
            ;
        if (between < 0)
            spawn(&start);
        filler_pid = between < 0 || adopts ? start.pid : 0;
    }
    if (stack != MAP_FAILED)
        munmap(stack, room);
    posix_spawnattr_destroy(&start.attributes);
    posix_spawn_file_actions_destroy(&start.actions);
    starting = -1;
    close(ends[1]);
    filler_of = c;
    owner = getpid();
    if (start.failed == -1 && (ends[0] < 0 || ends[1] < 0 || stack == MAP_FAILED))
        start.failed = EMFILE;
    if (start.failed <= 0) /* under an emulator it cannot be told, and shows when it is asked */
        return 0;
    stop_filler();
    dprintf(2, "cloudimport: %s cannot be started to fetch files for C code: %s\n", c->argv[0],
            strerror(start.failed));
    return -1;
}

static int send_all(const char *data, size_t size)
{
    while (size) {
        ssize_t sent = send(filler, data, size, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return -1;
        data += sent;
        size -= (size_t)sent;
    }
    return 0;
}

static int receive_all(char *data, size_t size, long long deadline)
{
    while (size) {
        struct pollfd ready = {filler, POLLIN, 0};
        long long left = deadline - milliseconds();
        int got = left > 0 ? poll(&ready, 1, (int)left) : 0;
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return -1;
        ssize_t received = recv(filler, data, size, 0);
        if (received < 0 && errno == EINTR)
            continue;
        if (received <= 0)
            return -1;
        data += received;
        size -= (size_t)received;
    }
    return 0;
}

/* What the filler answers: see cloudimport/filler.py. Native byte order, no padding. */
typedef struct {
    int32_t status;       /* 0: it is there; -1: it is still at work, ask on; else an errno */
    uint32_t other_size;  /* of the path that follows: where it is, if not in its place */
    uint64_t requests, bytes;
} Answer;

/* With the lock held. Returns an errno. */
static int exchange(Config *c, char what, const char *relative, char *other)
{
    if (filler >= 0 && (filler_of != c || id_of(filler) != socket_id || owner != getpid()))
        stop_filler();
    if (filler < 0 && start_filler(c))
        return EIO;
    Answer answer;
    size_t path_size = strlen(relative), size = 1 + path_size;
    Touched *newest = what == 'F' ? NULL : atomic_load(&newest_touched);
    for (Touched *at = newest; at != NULL; at = at->older)
        size += at->config == c ? 1 + strlen(at->path) : 0;
    uint32_t all = (uint32_t)size;
    int lost = size > 64 << 20 || send_all((char *)&all, sizeof all) || send_all(&what, 1) || send_all(relative, path_size);
    for (Touched *at = newest; at != NULL && !lost; at = at->older)
        lost = at->config == c && (send_all("", 1) || send_all(at->path, strlen(at->path)));
    do { /* as long as it says that it is at work, it is */
        long long deadline = milliseconds() + c->timeout;
        lost = lost || receive_all((char *)&answer, sizeof answer, deadline) || answer.other_size >= PATH_MAX
               || receive_all(other, answer.other_size, deadline);
    } while (!lost && answer.status == -1);
    if (lost) {
        stop_filler(); /* it is gone, or its next answer would be to this question: the next one starts another */
        return EIO;
    }
    other[answer.other_size] = 0;
    atomic_fetch_add(&count_fills, answer.status == 0);
    atomic_fetch_add(&count_requests, answer.requests);
    atomic_fetch_add(&count_bytes, answer.bytes);
    return answer.status;
}

/* Have the file or folder ('F'), all that a folder has ('D'), or all that lies below it ('T') put in its place,
 * but for what was touched. Returns 0 or an errno; other is the path to use instead, or empty. */
static int ask(Config *c, char what, const char *relative, char *other)
{
    int status, state;
    sigset_t signals, before;
    other[0] = 0;
    /* A handler could ask as well, or jump away, with the lock held. What it waits for ends by itself. */
    sigfillset(&signals);
    pthread_sigmask(SIG_SETMASK, &signals, &before);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    pthread_mutex_lock(&filler_lock); /* whoever has it gets an answer, or gives up */
    long long limit = milliseconds() + c->timeout;
    int had = filler >= 0;
    status = exchange(c, what, relative, other);
    if (status == EIO && had && filler < 0 && milliseconds() < limit)
        status = exchange(c, what, relative, other); /* killed meanwhile: one other try */
    if (atomic_load(&config) != c)
        stop_filler(); /* uninstalled meanwhile */
    pthread_mutex_unlock(&filler_lock);
    pthread_setcancelstate(state, &state);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return status;
}

/* After ENOENT: returns whether the call is to be made again, with *path replaced if need be: by *other, which
 * the caller frees. errno is what the caller gets otherwise. For a call that makes something new (``makes``),
 * its folder is what may be missing. */
__attribute__((noinline)) static int fill(Config *c, int dirfd, const char **path, char **other, int makes)
{
    int status = ENOENT;
    Scratch *s = new_scratch();
    if (s != NULL && below_root(c, dirfd, *path, s) && s->relative[0]) {
        char *name = strrchr(s->relative, '/');
        int has = may_have(c, s->relative);
        if (!has && makes && name != NULL) {
            *name = 0;
            has = may_have(c, s->relative);
        }
        status = has ? ask(c, 'F', s->relative, s->other) : ENOENT;
        if (status == 0 && s->other[0])
            *path = *other = strdup(s->other);
    }
    free_scratch(s);
    errno = status == 0 ? ENOENT : status; /* as the first call has left it */
    return status == 0 && *path != NULL;
}

static inline int filled(int dirfd, const char **path, char **other, int makes)
{
    Config *c = atomic_load_explicit(&config, memory_order_acquire);
    return is_worth_a_look(c, dirfd, *path) && fill(c, dirfd, path, other, makes);
}

/* Before a call that would make the file, or that lists the folder, without saying ENOENT; 'P' is for the
 * file's folder alone. Returns 0, with *path replaced if need be as above, or -1 and errno when what the
 * environment has there cannot be had. */
__attribute__((noinline)) static int prepare(Config *c, int dirfd, const char **path, char what, char **other)
{
    int status = 0;
    Scratch *s = new_scratch();
    if (s != NULL && below_root(c, dirfd, *path, s) && !(what == 'F' && real.faccessat(dirfd, *path, F_OK, 0) == 0)) {
        char *name = strrchr(s->relative, '/');
        if (what == 'P' && name != NULL)
            *name = 0;
        if ((what != 'P' || name != NULL) && may_have(c, s->relative))
            status = ask(c, what == 'P' ? 'F' : what, s->relative, s->other);
        if (status == 0 && s->other[0] && what != 'P')
            *path = *other = strdup(s->other);
    }
    free_scratch(s);
    if (status == 0 || status == ENOENT)
        return 0;
    errno = status;
    return -1;
}

static inline int prepared(int dirfd, const char **path, char what, char **other)
{
    Config *c = atomic_load_explicit(&config, memory_order_acquire);
    int kept = errno;
    if (is_worth_a_look(c, dirfd, *path) && prepare(c, dirfd, path, what, other))
        return -1;
    errno = kept;
    return 0;
}

/* After a call that has changed, removed or made something. */
__attribute__((noinline)) static void touch_path(Config *c, int dirfd, const char *path)
{
    Scratch *s = new_scratch();
    if (s != NULL && below_root(c, dirfd, path, s))
        touch(c, s->relative);
    free_scratch(s);
}

static inline void changed(int dirfd, const char *path)
{
    Config *c = atomic_load_explicit(&config, memory_order_acquire);
    int kept = errno;
    if (is_worth_a_look(c, dirfd, path))
        touch_path(c, dirfd, path);
    errno = kept;
}

/* After the second call, whose errno it leaves. */
static inline void done_with(char *other)
{
    if (other != NULL) {
        int kept = errno;
        free(other);
        errno = kept;
    }
}

/* ---- the hooks ------------------------------------------------------------------------------ */

#define MISSING(result) ((result) == -1 && errno == ENOENT)

#define MODE_OF(flags) \
    unsigned int mode = 0; \
    if ((flags) & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, unsigned int); \
        va_end(more); \
    }
#ifndef __O_TMPFILE
#define __O_TMPFILE 020000000
#endif

/* Whether a file that is pending must be there before: it would be made, and not as an empty one anyway. */
#define MAKES(flags) (((flags) & O_CREAT) && (!((flags) & O_TRUNC) || ((flags) & O_EXCL)))

#define WRITES(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & (O_CREAT | O_TRUNC)))

#define OPEN(NAME, DIRFD, PARAMETERS, ARGUMENTS) \
    static int hook_##NAME PARAMETERS \
    { \
        char *other = NULL; \
        MODE_OF(flags) \
        if (MAKES(flags) && prepared(DIRFD, &path, 'F', &other)) \
            return -1; \
        int result = real.NAME ARGUMENTS; \
        if (MISSING(result) && filled(DIRFD, &path, &other, flags & O_CREAT)) \
            result = real.NAME ARGUMENTS; \
        if (result >= 0 && WRITES(flags)) \
            changed(DIRFD, path); \
        done_with(other); \
        return result; \
    }
OPEN(open, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, dirfd, (int dirfd, const char *path, int flags, ...), (dirfd, path, flags, mode))
OPEN(openat64, dirfd, (int dirfd, const char *path, int flags, ...), (dirfd, path, flags, mode))

/* What fortified code calls instead (glibc, "Fortification of function calls"). */
static int hook_open_2(const char *path, int flags) { return hook_open64(path, flags); }
static int hook_openat_2(int dirfd, const char *path, int flags) { return hook_openat64(dirfd, path, flags); }

/* Whether a mode of fopen() makes the file, and whether that keeps what is in it. */
#define MAKES_FILE(mode) ((mode) != NULL && (*(mode) == 'a' || *(mode) == 'w'))
#define KEEPS_FILE(mode) \
    ((mode) != NULL && (*(mode) == 'a' || (*(mode) == 'w' && (mode)[strcspn((mode), "x,")] == 'x')))

#define CHANGES_FILE(mode) ((mode) != NULL && (*(mode) != 'r' || strchr((mode), '+') != NULL))

#define FOPEN(NAME) \
    static FILE *hook_##NAME(const char *path, const char *mode) \
    { \
        char *other = NULL; \
        if (KEEPS_FILE(mode) && prepared(AT_FDCWD, &path, 'F', &other)) \
            return NULL; \
        FILE *result = real.NAME(path, mode); \
        if (result == NULL && errno == ENOENT && filled(AT_FDCWD, &path, &other, MAKES_FILE(mode))) \
            result = real.NAME(path, mode); \
        if (result != NULL && CHANGES_FILE(mode)) \
            changed(AT_FDCWD, path); \
        done_with(other); \
        return result; \
    }
FOPEN(fopen)
FOPEN(fopen64)

/* It closes the stream before it opens anything, so there is no second try. */
#define FREOPEN(NAME) \
    static FILE *hook_##NAME(const char *path, const char *mode, FILE *stream) \
    { \
        char *other = NULL; \
        int failed = (MAKES_FILE(mode) && prepared(AT_FDCWD, &path, 'P', &other)) \
                     || ((!MAKES_FILE(mode) || KEEPS_FILE(mode)) && prepared(AT_FDCWD, &path, 'F', &other)); \
        int kept = errno; \
        FILE *result = real.NAME(failed ? "/dev/null/none" : path, mode, stream); \
        if (failed) \
            errno = kept; \
        else if (result != NULL && CHANGES_FILE(mode)) \
            changed(AT_FDCWD, path); \
        done_with(other); \
        return result; \
    }
FREOPEN(freopen)
FREOPEN(freopen64)

/* Call, fill, call again: for what names its file ``path``, in the folder DIRFD. BEFORE is what must be there for
 * the first call already ('F', 'D' or 'T', see ask()), or 0; MAKES whether it makes the file, CHANGES whether it
 * changes, makes or removes it. */
#define CALL(TYPE, NAME, DIRFD, BEFORE, MAKES, CHANGES, PARAMETERS, ARGUMENTS) \
    static TYPE hook_##NAME PARAMETERS \
    { \
        char *other = NULL; \
        if (BEFORE && prepared(DIRFD, &path, BEFORE, &other)) \
            return -1; \
        TYPE result = real.NAME ARGUMENTS; \
        if (MISSING(result) && filled(DIRFD, &path, &other, MAKES)) \
            result = real.NAME ARGUMENTS; \
        if (CHANGES && result >= 0) \
            changed(DIRFD, path); \
        done_with(other); \
        return result; \
    }
#define HOOK(NAME, DIRFD, PARAMETERS, ARGUMENTS) CALL(int, NAME, DIRFD, 0, 0, 0, PARAMETERS, ARGUMENTS)
#define CHANGE(NAME, DIRFD, BEFORE, MAKES, PARAMETERS, ARGUMENTS) \
    CALL(int, NAME, DIRFD, BEFORE, MAKES, 1, PARAMETERS, ARGUMENTS)

HOOK(stat, AT_FDCWD, (const char *path, void *out), (path, out))
HOOK(stat64, AT_FDCWD, (const char *path, void *out), (path, out))
HOOK(lstat, AT_FDCWD, (const char *path, void *out), (path, out))
HOOK(lstat64, AT_FDCWD, (const char *path, void *out), (path, out))
HOOK(fstatat, dirfd, (int dirfd, const char *path, void *out, int flags), (dirfd, path, out, flags))
HOOK(fstatat64, dirfd, (int dirfd, const char *path, void *out, int flags), (dirfd, path, out, flags))
HOOK(xstat, AT_FDCWD, (int version, const char *path, void *out), (version, path, out))
HOOK(xstat64, AT_FDCWD, (int version, const char *path, void *out), (version, path, out))
HOOK(lxstat, AT_FDCWD, (int version, const char *path, void *out), (version, path, out))
HOOK(lxstat64, AT_FDCWD, (int version, const char *path, void *out), (version, path, out))
HOOK(fxstatat, dirfd, (int version, int dirfd, const char *path, void *out, int flags),
     (version, dirfd, path, out, flags))
HOOK(fxstatat64, dirfd, (int version, int dirfd, const char *path, void *out, int flags),
     (version, dirfd, path, out, flags))
HOOK(statx, dirfd, (int dirfd, const char *path, int flags, unsigned int mask, void *out),
     (dirfd, path, flags, mask, out))
HOOK(access, AT_FDCWD, (const char *path, int mode), (path, mode))
HOOK(faccessat, dirfd, (int dirfd, const char *path, int mode, int flags), (dirfd, path, mode, flags))

CHANGE(truncate, AT_FDCWD, 0, 0, (const char *path, off_t size), (path, size))
CHANGE(truncate64, AT_FDCWD, 0, 0, (const char *path, off64_t size), (path, size))
CHANGE(unlink, AT_FDCWD, 0, 0, (const char *path), (path))
CHANGE(unlinkat, dirfd, 0, 0, (int dirfd, const char *path, int flags), (dirfd, path, flags))
CHANGE(remove, AT_FDCWD, 0, 0, (const char *path), (path))
CHANGE(creat, AT_FDCWD, 0, 1, (const char *path, mode_t mode), (path, mode))
CHANGE(creat64, AT_FDCWD, 0, 1, (const char *path, mode_t mode), (path, mode))
CHANGE(rmdir, AT_FDCWD, 'T', 0, (const char *path), (path))
CHANGE(mkdir, AT_FDCWD, 'F', 1, (const char *path, mode_t mode), (path, mode))
CHANGE(mkdirat, dirfd, 'F', 1, (int dirfd, const char *path, mode_t mode), (dirfd, path, mode))
CHANGE(symlink, AT_FDCWD, 'F', 1, (const char *text, const char *path), (text, path))
CHANGE(symlinkat, dirfd, 'F', 1, (const char *text, int dirfd, const char *path), (text, dirfd, path))
HOOK(chmod, AT_FDCWD, (const char *path, mode_t mode), (path, mode))
HOOK(fchmodat, dirfd, (int dirfd, const char *path, mode_t mode, int flags), (dirfd, path, mode, flags))
HOOK(chown, AT_FDCWD, (const char *path, uid_t user, gid_t group), (path, user, group))
HOOK(utimensat, dirfd, (int dirfd, const char *path, void *times, int flags), (dirfd, path, times, flags))
HOOK(utimes, AT_FDCWD, (const char *path, void *times), (path, times))
HOOK(statvfs, AT_FDCWD, (const char *path, void *out), (path, out))
HOOK(statvfs64, AT_FDCWD, (const char *path, void *out), (path, out))
HOOK(euidaccess, AT_FDCWD, (const char *path, int mode), (path, mode))
HOOK(eaccess, AT_FDCWD, (const char *path, int mode), (path, mode))
CALL(ssize_t, readlink, AT_FDCWD, 0, 0, 0, (const char *path, char *out, size_t room), (path, out, room))
CALL(ssize_t, readlinkat, dirfd, 0, 0, 0, (int dirfd, const char *path, char *out, size_t room),
     (dirfd, path, out, room))

/* Either end may be what is missing; of a folder, all that lies below it goes along. */
#define MOVE(NAME, FROM, TO, MOVES, PARAMETERS, ARGUMENTS) \
    static int hook_##NAME PARAMETERS \
    { \
        char *first = NULL, *second = NULL; \
        int result = prepared(FROM, &path, MOVES ? 'T' : 'F', &first) ? -2 : real.NAME ARGUMENTS; \
        if (MISSING(result) && filled(TO, &target, &second, 1)) \
            result = real.NAME ARGUMENTS; \
        if (result == 0 && MOVES) \
            changed(FROM, path); \
        if (result == 0) \
            changed(TO, target); \
        done_with(first); \
        done_with(second); \
        return result < 0 ? -1 : result; \
    }
MOVE(rename, AT_FDCWD, AT_FDCWD, 1, (const char *path, const char *target), (path, target))
MOVE(renameat, dirfd, to, 1, (int dirfd, const char *path, int to, const char *target), (dirfd, path, to, target))
MOVE(renameat2, dirfd, to, 1, (int dirfd, const char *path, int to, const char *target, unsigned flags),
     (dirfd, path, to, target, flags))
MOVE(link, AT_FDCWD, AT_FDCWD, 0, (const char *path, const char *target), (path, target))
MOVE(linkat, dirfd, to, 0, (int dirfd, const char *path, int to, const char *target, int flags),
     (dirfd, path, to, target, flags))

static DIR *hook_opendir(const char *path)
{
    char *other = NULL;
    DIR *result = prepared(AT_FDCWD, &path, 'D', &other) ? NULL : real.opendir(path);
    done_with(other);
    return result;
}

/* Its path is that by which it was opened. */
static DIR *hook_fdopendir(int descriptor)
{
    Config *c = atomic_load_explicit(&config, memory_order_acquire);
    char link[64], *path = c == NULL ? NULL : malloc(PATH_MAX), *other = NULL;
    const char *opened = path;
    int kept = errno, failed = 0;
    if (path != NULL) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
        ssize_t got = real.readlink(link, path, PATH_MAX - 1);
        path[got > 0 ? got : 0] = 0;
        errno = kept;
        failed = *path == '/' && prepared(AT_FDCWD, &opened, 'D', &other);
        done_with(other);
        done_with(path);
    }
    return failed ? NULL : real.fdopendir(descriptor);
}

/* What lists a folder ('D'), or walks over all that is below it ('T'). */
#define WALK(NAME, WHAT, PARAMETERS, ARGUMENTS) \
    static int hook_##NAME PARAMETERS \
    { \
        char *other = NULL; \
        int result = prepared(AT_FDCWD, &path, WHAT, &other) ? -1 : real.NAME ARGUMENTS; \
        done_with(other); \
        return result; \
    }
WALK(scandir, 'D', (const char *path, struct dirent ***out, void *filter, void *compare), (path, out, filter, compare))
WALK(scandir64, 'D', (const char *path, struct dirent64 ***out, void *filter, void *compare),
     (path, out, filter, compare))
WALK(ftw, 'T', (const char *path, void *call, int descriptors), (path, call, descriptors))
WALK(ftw64, 'T', (const char *path, void *call, int descriptors), (path, call, descriptors))
WALK(nftw, 'T', (const char *path, void *call, int descriptors, int flags), (path, call, descriptors, flags))
WALK(nftw64, 'T', (const char *path, void *call, int descriptors, int flags), (path, call, descriptors, flags))

/* What may match is below the last folder that is named without a wildcard. */
__attribute__((noinline)) static int glob_there(const char *pattern)
{
    char *folder = strndup(pattern, strcspn(pattern, "*?[{\\")), *other = NULL;
    char *slash = folder == NULL ? NULL : strrchr(folder, '/');
    const char *path = slash == NULL ? "." : folder;
    if (slash != NULL)
        slash[slash == folder] = 0;
    int failed = prepared(AT_FDCWD, &path, 'T', &other);
    done_with(other);
    done_with(folder);
    return failed;
}

#define GLOB(NAME) \
    static int hook_##NAME(const char *pattern, int flags, void *failed, NAME##_t *out) \
    { \
        Config *c = atomic_load_explicit(&config, memory_order_acquire); \
        if ((flags & GLOB_ALTDIRFUNC) || !is_worth_a_look(c, AT_FDCWD, pattern) || !glob_there(pattern)) \
            return real.NAME(pattern, flags, failed, out); \
        if (!(flags & GLOB_APPEND)) { \
            out->gl_pathc = 0; \
            out->gl_pathv = NULL; \
        } \
        return GLOB_ABORTED; \
    }
GLOB(glob)
GLOB(glob64)

static char *hook_realpath(const char *path, char *out)
{
    char *other = NULL;
    char *result = real.realpath(path, out);
    if (result == NULL && errno == ENOENT && filled(AT_FDCWD, &path, &other, 0))
        result = real.realpath(path, out);
    done_with(other);
    return result;
}

static char *hook_canonicalize_file_name(const char *path)
{
    return hook_realpath(path, NULL);
}

/* The room was checked by the caller's compiler or is checked here (glibc, "Fortification"). */
static ssize_t hook_readlink_chk(const char *path, char *out, size_t size, size_t room)
{
    if (size > room)
        abort();
    return hook_readlink(path, out, size);
}

static ssize_t hook_readlinkat_chk(int dirfd, const char *path, char *out, size_t size, size_t room)
{
    if (size > room)
        abort();
    return hook_readlinkat(dirfd, path, out, size);
}

static char *hook_realpath_chk(const char *path, char *out, size_t room)
{
    (void)room;
    return hook_realpath(path, out);
}

static int scan(void);

__attribute__((noinline)) static void *dlopen_there(const char *path, int mode)
{
    char *other = NULL;
    prepared(AT_FDCWD, &path, 'F', &other); /* if it cannot be had, dlerror() will say that it is not there */
    void *result = real.dlopen(path, mode);
    done_with(other);
    if (result != NULL)
        scan();
    return result;
}

/* A call in whose place the original is jumped to, so that it sees its caller: at any level of optimisation. */
#ifdef __clang__
#define JUMPS
#define JUMP __attribute__((musttail)) return
#else
#define JUMPS __attribute__((optimize("O2")))
#define JUMP return
#endif

/* What has no slash is searched for beside whoever calls; so is what begins with $ORIGIN. */
JUMPS static void *hook_dlopen(const char *path, int mode)
{
    if (path == NULL || strchr(path, '/') == NULL || strchr(path, '$') != NULL)
        JUMP real.dlopen(path, mode);
    return dlopen_there(path, mode);
}

static void *found_by_name(void *handle, const char *name);

/* For those who look a function up by its name, as ctypes does. What is searched depends on who calls, so
 * that the call must come from there: jumps. Interposers look for the next one, which must not be a hook. */
JUMPS static void *hook_dlsym(void *handle, const char *name)
{
    if (handle == RTLD_NEXT || name == NULL || atomic_load_explicit(&config, memory_order_relaxed) == NULL)
        JUMP real.dlsym(handle, name);
    scan(); /* what was loaded by a name without a slash is used now */
    void *hook = found_by_name(handle, name);
    if (hook != NULL)
        return hook;
    JUMP real.dlsym(handle, name);
}

/* ---- putting them into the slots ------------------------------------------------------------ */

static const struct {
    const char *name;
    void *hook;
    void **original;
    int for_python; /* whether Python's own calls too: its look-ups are wrapped in Python, and many */
} hooks[] = {
#define ENTRY(NAME, SYMBOL, FOR_PYTHON) {SYMBOL, (void *)hook_##NAME, (void **)&real.NAME, FOR_PYTHON}
    ENTRY(open, "open", 1),
    ENTRY(open64, "open64", 1),
    ENTRY(openat, "openat", 1),
    ENTRY(openat64, "openat64", 1),
    {"__open_2", (void *)hook_open_2, NULL, 1},
    {"__open64_2", (void *)hook_open_2, NULL, 1},
    {"__openat_2", (void *)hook_openat_2, NULL, 1},
    {"__openat64_2", (void *)hook_openat_2, NULL, 1},
    ENTRY(fopen, "fopen", 1),
    ENTRY(fopen64, "fopen64", 1),
    ENTRY(freopen, "freopen", 1),
    ENTRY(freopen64, "freopen64", 1),
    ENTRY(creat, "creat", 0),
    ENTRY(creat64, "creat64", 0),
    ENTRY(stat, "stat", 0),
    ENTRY(stat64, "stat64", 0),
    ENTRY(lstat, "lstat", 0),
    ENTRY(lstat64, "lstat64", 0),
    ENTRY(fstatat, "fstatat", 0),
    ENTRY(fstatat64, "fstatat64", 0),
    ENTRY(xstat, "__xstat", 0),
    ENTRY(xstat64, "__xstat64", 0),
    ENTRY(lxstat, "__lxstat", 0),
    ENTRY(lxstat64, "__lxstat64", 0),
    ENTRY(fxstatat, "__fxstatat", 0),
    ENTRY(fxstatat64, "__fxstatat64", 0),
    ENTRY(statx, "statx", 0),
    ENTRY(access, "access", 0),
    ENTRY(faccessat, "faccessat", 0),
    ENTRY(readlink, "readlink", 0),
    ENTRY(readlinkat, "readlinkat", 0),
    {"__readlink_chk", (void *)hook_readlink_chk, NULL, 0},
    {"__readlinkat_chk", (void *)hook_readlinkat_chk, NULL, 0},
    ENTRY(truncate, "truncate", 0),
    ENTRY(truncate64, "truncate64", 0),
    ENTRY(unlink, "unlink", 0),
    ENTRY(unlinkat, "unlinkat", 0),
    ENTRY(remove, "remove", 0),
    ENTRY(rename, "rename", 0),
    ENTRY(renameat, "renameat", 0),
    ENTRY(renameat2, "renameat2", 0),
    ENTRY(link, "link", 0),
    ENTRY(linkat, "linkat", 0),
    ENTRY(symlink, "symlink", 0),
    ENTRY(symlinkat, "symlinkat", 0),
    ENTRY(rmdir, "rmdir", 0),
    ENTRY(mkdir, "mkdir", 0),
    ENTRY(mkdirat, "mkdirat", 0),
    ENTRY(chmod, "chmod", 0),
    ENTRY(fchmodat, "fchmodat", 0),
    ENTRY(chown, "chown", 0),
    ENTRY(utimensat, "utimensat", 0),
    ENTRY(utimes, "utimes", 0),
    ENTRY(statvfs, "statvfs", 0),
    ENTRY(statvfs64, "statvfs64", 0),
    ENTRY(euidaccess, "euidaccess", 0),
    ENTRY(eaccess, "eaccess", 0),
    ENTRY(opendir, "opendir", 0),
    ENTRY(fdopendir, "fdopendir", 0),
    ENTRY(scandir, "scandir", 0),
    ENTRY(scandir64, "scandir64", 0),
    ENTRY(ftw, "ftw", 0),
    ENTRY(ftw64, "ftw64", 0),
    ENTRY(nftw, "nftw", 0),
    ENTRY(nftw64, "nftw64", 0),
    ENTRY(glob, "glob", 0),
    ENTRY(glob64, "glob64", 0),
    ENTRY(realpath, "realpath", 0),
    ENTRY(canonicalize_file_name, "canonicalize_file_name", 0),
    {"__realpath_chk", (void *)hook_realpath_chk, NULL, 0},
    ENTRY(dlopen, "dlopen", 1),
    ENTRY(dlsym, "dlsym", 1),
};
#define HOOKS (sizeof hooks / sizeof *hooks)

/* What the C library has by these names; NULL: nothing. Asked for once: dlsym() takes a lock that must not be
 * waited for while the list of objects is walked. */
static void *defaults[HOOKS];

/* Hooks by the first two letters of their names, counted from 1: one to begin with, and one after each. */
static unsigned char heads[256], following[HOOKS];

static unsigned char *head_of(const char *name)
{
    return &heads[((unsigned char)name[0] * 31u + (unsigned char)(name[0] ? name[1] : 0)) % 256];
}

/* Which hook is for a name, or HOOKS. */
static size_t hook_named(const char *name)
{
    for (size_t i = *head_of(name); i != 0; i = following[i - 1])
        if (strcmp(name, hooks[i - 1].name) == 0)
            return i - 1;
    return HOOKS;
}

/* The hook for a function that is the C library's, or NULL. */
static void *found_by_name(void *handle, const char *name)
{
    size_t found = hook_named(name);
    void *original = found < HOOKS && hooks[found].original != NULL ? *hooks[found].original : NULL;
    return original != NULL && (handle == RTLD_DEFAULT || real.dlsym(handle, name) == original)
               ? hooks[found].hook : NULL;
}

/* Objects that have been seen, since the last time that one was unloaded. */
static pthread_mutex_t scan_lock = PTHREAD_MUTEX_INITIALIZER;
static _Atomic int scan_again;
static unsigned long long seen_adds, seen_subs;
static const void *seen[4096];
static size_t seen_count;
static uint64_t slots;

/* Whether an object was seen; with ``now`` it is from now on. */
static int is_seen(const void *object, int now)
{
    size_t at = ((uintptr_t)object >> 6) % 4096;
    while (seen[at] != NULL) {
        if (seen[at] == object)
            return 1;
        at = (at + 1) % 4096;
    }
    if (now && seen_count < 3000) { /* beyond it, objects are looked at each time */
        seen[at] = object;
        seen_count++;
    }
    return 0;
}

static int contains(const struct dl_phdr_info *object, const void *address)
{
    for (int i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        uintptr_t start = object->dlpi_addr + part->p_vaddr;
        if (part->p_type == PT_LOAD && (uintptr_t)address >= start && (uintptr_t)address < start + part->p_memsz)
            return 1;
    }
    return 0;
}

typedef struct {
    ElfW(Addr) base;
    const ElfW(Sym) *symbols;
    const char *names;
    const ElfW(Rela) *plt, *rela;
    size_t plt_count, rela_count, relative_count;
    uintptr_t span;             /* where its last part ends, if it were loaded at 0 */
    uintptr_t relro, relro_end; /* pages that the linker has made read-only */
    int is_python;
} Object;

static int read_object(const struct dl_phdr_info *info, Object *o)
{
    const ElfW(Dyn) *entry = NULL;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    size_t plt_size = 0, rela_size = 0;
    memset(o, 0, sizeof *o);
    o->base = info->dlpi_addr;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type == PT_LOAD && part->p_vaddr + part->p_memsz > o->span)
            o->span = part->p_vaddr + part->p_memsz;
        if (part->p_type == PT_DYNAMIC)
            entry = (const ElfW(Dyn) *)(o->base + part->p_vaddr);
        if (part->p_type == PT_GNU_RELRO) {
            o->relro = (o->base + part->p_vaddr) & ~(page - 1);
            o->relro_end = (o->base + part->p_vaddr + part->p_memsz) & ~(page - 1);
        }
    }
    for (; entry != NULL && entry->d_tag != DT_NULL; entry++) {
        /* The linker has added the base to pointers, except in objects that are not its own (vdso). */
        ElfW(Addr) pointer = entry->d_un.d_ptr < o->base ? o->base + entry->d_un.d_ptr : entry->d_un.d_ptr;
        switch (entry->d_tag) {
        case DT_SYMTAB: o->symbols = (const ElfW(Sym) *)pointer; break;
        case DT_STRTAB: o->names = (const char *)pointer; break;
        case DT_JMPREL: o->plt = (const ElfW(Rela) *)pointer; break;
        case DT_PLTRELSZ: plt_size = entry->d_un.d_val; break;
        case DT_RELA: o->rela = (const ElfW(Rela) *)pointer; break;
        case DT_RELASZ: rela_size = entry->d_un.d_val; break;
        case DT_RELACOUNT: o->relative_count = entry->d_un.d_val; break;
        }
    }
    o->plt_count = o->plt ? plt_size / sizeof *o->plt : 0;
    o->rela_count = o->rela ? rela_size / sizeof *o->rela : 0;
    return o->symbols != NULL && o->names != NULL;
}

/* Which hook is for a function that an object calls by that name, or HOOKS. */
static size_t hook_for(const Object *o, const char *name)
{
    size_t found = hook_named(name);
    return found < HOOKS && (defaults[found] == NULL || (o->is_python && !hooks[found].for_python)) ? HOOKS : found;
}

/* Write to a page that the linker has made read-only, or is about to. Through the file, protections stay as
 * they are: another thread may be relocating other slots of that page. */
static int write_protected(void **slot, void *hook)
{
    int memory = real.open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    ssize_t written = memory < 0 ? -1 : pwrite(memory, &hook, sizeof hook, (off_t)(uintptr_t)slot);
    if (memory >= 0)
        close(memory);
    if (written == sizeof hook)
        return 1;
    uintptr_t size = (uintptr_t)sysconf(_SC_PAGESIZE), page = (uintptr_t)slot & ~(size - 1);
    if (mprotect((void *)page, size, PROT_READ | PROT_WRITE))
        return 0;
    __atomic_store_n(slot, hook, __ATOMIC_RELEASE);
    return 1; /* and writable it stays */
}

/* Whether the linker, in another thread, has not come to a slot yet. */
static int is_unfinished(const Object *o, const ElfW(Rela) *entries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t kind = (uint32_t)ELF64_R_TYPE(entries[i].r_info);
        if (kind != R_SLOT && kind != R_GLOB)
            continue;
        const ElfW(Sym) *symbol = &o->symbols[ELF64_R_SYM(entries[i].r_info)];
        uintptr_t value = *(uintptr_t *)(o->base + entries[i].r_offset);
        /* As it is in the file: an address inside of the object as if it were loaded at 0, or nothing. */
        if (symbol->st_shndx == SHN_UNDEF && ELF64_ST_BIND(symbol->st_info) != STB_WEAK
            && (kind == R_SLOT ? o->base != 0 && value < o->span : value == 0))
            return 1;
    }
    return 0;
}

static void patch(Object *o, const ElfW(Rela) *entries, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t kind = (uint32_t)ELF64_R_TYPE(entries[i].r_info);
        if (kind != R_SLOT && kind != R_GLOB && !(kind == R_WORD && entries[i].r_addend == 0))
            continue;
        const ElfW(Sym) *symbol = &o->symbols[ELF64_R_SYM(entries[i].r_info)];
        if (symbol->st_shndx != SHN_UNDEF || symbol->st_name == 0)
            continue; /* its own function of that name, or none */
        size_t found = hook_for(o, o->names + symbol->st_name);
        void **slot = (void **)(o->base + entries[i].r_offset);
        void *hook = found == HOOKS ? NULL : hooks[found].hook;
        if (hook == NULL || *slot == hook || *slot == NULL) /* NULL: weak, and not there */
            continue;
        if (kind == R_WORD && *slot != defaults[found])
            continue; /* the program has put something else there */
        if ((uintptr_t)slot < o->relro || (uintptr_t)slot >= o->relro_end)
            __atomic_store_n(slot, hook, __ATOMIC_RELEASE);
        else if (!write_protected(slot, hook))
            return;
        slots++;
    }
}

static int visit(struct dl_phdr_info *info, size_t size, void *first)
{
    (void)size;
    if (*(int *)first) {
        *(int *)first = 0;
        if (info->dlpi_adds == seen_adds && info->dlpi_subs == seen_subs)
            return 1; /* nothing was loaded since */
        if (info->dlpi_subs != seen_subs) {
            memset(seen, 0, sizeof seen);
            seen_count = 0;
        }
        seen_adds = info->dlpi_adds;
        seen_subs = info->dlpi_subs;
    }
    if (is_seen(info->dlpi_phdr, 0))
        return 0; /* before all else: there may be hundreds, at each load */
    Object object;
    /* libc finds its own functions without these slots, or must (dlopen); the linker has none. */
    if (contains(info, (void *)hook_dlopen) || contains(info, (void *)real.open)
        || contains(info, (void *)real.dlopen) || contains(info, (void *)getauxval(AT_BASE))
        || !read_object(info, &object)) {
        is_seen(info->dlpi_phdr, 1);
        return 0;
    }
    const ElfW(Rela) *symbolic = object.rela + object.relative_count;
    size_t symbolic_count = object.rela_count > object.relative_count ? object.rela_count - object.relative_count : 0;
    if (is_unfinished(&object, object.plt, object.plt_count) || is_unfinished(&object, symbolic, symbolic_count)) {
        seen_adds = 0; /* whoever loads it scans when that is done, and so does the next scan */
        return 0;
    }
    is_seen(info->dlpi_phdr, 1);
    object.is_python = contains(info, (void *)PyErr_Occurred);
    patch(&object, object.plt, object.plt_count);
    patch(&object, symbolic, symbolic_count);
    return 0;
}

/* Put the hooks into what was loaded since the last time; returns how many slots they are in. */
static int scan(void)
{
    atomic_store(&scan_again, 1);
    /* Whoever scans at the moment does it once more: waiting for it here, inside of dlopen, could be for ever. */
    while (atomic_load(&scan_again) && pthread_mutex_trylock(&scan_lock) == 0) {
        int first = 1;
        atomic_store(&scan_again, 0);
        dl_iterate_phdr(visit, &first);
        pthread_mutex_unlock(&scan_lock);
    }
    return (int)slots;
}

/* ---- forks ---------------------------------------------------------------------------------- */

/* The filler is the parent's: two that ask through one socket would get each other's answers. */
static void after_fork(void)
{
    pthread_mutex_init(&filler_lock, NULL);
    pthread_mutex_init(&scan_lock, NULL);
    atomic_store(&readers, 0);
    if (starting >= 0)
        close(starting);
    starting = -1;
    filler_pid = 0;
    stop_filler();
}

/* ---- installing ------------------------------------------------------------------------------ */

static char **strings(PyObject *list)
{
    Py_ssize_t count = PyList_Size(list);
    char **out = count < 0 ? NULL : calloc((size_t)count + 1, sizeof *out);
    if (out == NULL)
        return NULL;
    for (Py_ssize_t i = 0; i < count; i++) {
        char *text = PyBytes_AsString(PyList_GetItem(list, i));
        if (text == NULL || (out[i] = strdup(text)) == NULL)
            return NULL; /* leaks a little, once, in a program that does not start */
    }
    return out;
}

static void find_originals(void)
{
#if defined(__x86_64__)
    const char *oldest = "GLIBC_2.2.5";
#else
    const char *oldest = "GLIBC_2.17";
#endif
    memset(heads, 0, sizeof heads);
    for (size_t i = 0; i < HOOKS; i++) {
        unsigned char *head = head_of(hooks[i].name);
        following[i] = *head;
        *head = (unsigned char)(i + 1);
        defaults[i] = dlsym(RTLD_DEFAULT, hooks[i].name);
        if (defaults[i] == NULL) /* kept for old programs only, as __xstat is */
            defaults[i] = dlvsym(RTLD_DEFAULT, hooks[i].name, oldest);
        if (hooks[i].original != NULL)
            *hooks[i].original = defaults[i];
    }
}

/* From now on hooks pass everything through. */
static void forget_config(void)
{
    Config *c = atomic_exchange(&config, NULL);
    if (c == NULL)
        return;
    while (atomic_load(&readers))
        sched_yield();
    c->paths = NULL;
    Py_DecRef(c->index);
}

static PyObject *native_install(PyObject *module, PyObject *args)
{
    (void)module;
    const char *root;
    PyObject *index, *argv, *envp;
    int timeout;
    static int registered;
    if (!PyArg_ParseTuple(args, "yO!O!O!i:install", &root, &PyBytes_Type, &index, &PyList_Type, &argv,
                          &PyList_Type, &envp, &timeout))
        return NULL;
    Config *c = calloc(1, sizeof *c);
    if (c == NULL || (c->root = strdup(root)) == NULL || (c->argv = strings(argv)) == NULL
        || (c->envp = strings(envp)) == NULL || c->argv[0] == NULL)
        return PyErr_Occurred() ? NULL : PyErr_NoMemory();
    c->root_size = strlen(root);
    c->name = strrchr(c->root, '/');
    const char *folder = c->name;
    while (folder != NULL && folder > c->root && folder[-1] != '/')
        folder--;
    if (folder == NULL || (c->mark = strndup(folder, (size_t)(c->name - folder))) == NULL)
        return PyErr_NoMemory();
    c->timeout = timeout;
    c->index = index;
    Py_IncRef(index);
    c->paths = PyBytes_AsString(index);
    c->paths_size = (size_t)PyBytes_Size(index);
    if (!registered) {
        find_originals();
        if (real.open == NULL || real.faccessat == NULL || real.readlink == NULL || real.realpath == NULL
            || real.dlopen == NULL || real.dlsym == NULL)
            return PyErr_Format(PyExc_OSError, "the C library lacks one of open, faccessat, readlink, realpath,"
                                               " dlopen, dlsym"), NULL;
        pthread_atfork(NULL, NULL, after_fork);
        registered = 1;
    }
    forget_config();
    atomic_store(&config, c);
    return PyLong_FromLong(scan());
}

static PyObject *native_uninstall(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    forget_config();
    if (pthread_mutex_trylock(&filler_lock) == 0) {
        stop_filler();
        pthread_mutex_unlock(&filler_lock);
    }
    Py_RETURN_NONE;
}

static PyObject *native_scan(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return PyLong_FromLong(scan());
}

static PyObject *native_touch(PyObject *module, PyObject *path)
{
    (void)module;
    Config *c = atomic_load(&config);
    const char *text = PyBytes_AsString(path);
    if (text == NULL)
        return NULL;
    if (c != NULL)
        touch(c, text);
    Py_RETURN_NONE;
}

/* With Python's lock held, so that no two threads are told of the same. */
static PyObject *native_touched(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    static Touched *told;
    Config *c = atomic_load(&config);
    Touched *newest = atomic_load(&newest_touched);
    PyObject *list = PyList_New(0);
    for (Touched *at = newest; list != NULL && at != told; at = at->older) {
        if (at->config != c)
            continue;
        PyObject *path = PyUnicode_DecodeFSDefault(at->path);
        if (path == NULL || PyList_Append(list, path))
            Py_CLEAR(list);
        Py_XDECREF(path);
    }
    told = newest;
    return list;
}

static PyObject *native_counts(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    return Py_BuildValue("KKK", (unsigned long long)count_fills, (unsigned long long)count_requests,
                         (unsigned long long)count_bytes);
}

/* ---- what stands in place of Python's functions ---------------------------------------------- */

/* The part of cloudimport/site/wrappers.py that every call of open(), os.stat() and their like goes through.
 * In C it is no frame in tracebacks, and costs less. */
typedef struct {
    PyObject_HEAD
    PyObject *call;      /* the original */
    PyObject *parameter; /* the name of its first parameter; None: every call is worth a look */
    PyObject *mark;      /* what every path into the tree contains */
    PyObject *paths;     /* has ``inside``: whether relative paths may be in the tree */
    char descriptors;    /* whether it takes those of folders */
} Call;

static PyMemberDef call_members[] = {
    {"_call", T_OBJECT, offsetof(Call, call), 0, NULL},
    {"_parameter", T_OBJECT, offsetof(Call, parameter), 0, NULL},
    {"_mark", T_OBJECT, offsetof(Call, mark), 0, NULL},
    {"_paths", T_OBJECT, offsetof(Call, paths), 0, NULL},
    {"_descriptors", T_BOOL, offsetof(Call, descriptors), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* Whether the first argument may name something in the tree; -1 with an exception set. */
static int may_be_ours(Call *self, PyObject *args, PyObject *kwargs)
{
    PyObject *path = NULL;
    Py_ssize_t size, mark_size;
    if (self->parameter == NULL || self->parameter == Py_None)
        return 1;
    if (PyTuple_Size(args) > 0)
        path = PyTuple_GetItem(args, 0);
    if (kwargs != NULL && PyDict_Size(kwargs) > 0) {
        if (path == NULL)
            path = PyDict_GetItemWithError(kwargs, self->parameter);
        PyObject *folder = PyErr_Occurred() ? NULL : PyUnicode_FromString("dir_fd");
        int relative = folder == NULL ? -1 : PyDict_Contains(kwargs, folder);
        Py_XDECREF(folder);
        if (relative)
            return relative;
    }
    if (path == NULL)
        return 1;
    if (PyLong_CheckExact(path))
        return self->descriptors;
    path = PyOS_FSPath(path);
    if (path == NULL) {
        PyErr_Clear(); /* the original complains */
        return 1;
    }
    const char *text = NULL, *mark = PyUnicode_AsUTF8AndSize(self->mark, &mark_size);
    if (PyUnicode_Check(path))
        text = PyUnicode_AsUTF8AndSize(path, &size);
    else if (mark != NULL && PyBytes_AsStringAndSize(path, (char **)&text, &size))
        text = NULL;
    int is_marked = text != NULL && mark != NULL && memmem(text, (size_t)size, mark, (size_t)mark_size) != NULL;
    int is_absolute = text != NULL && *text == '/';
    Py_DECREF(path);
    if (PyErr_Occurred()) {
        PyErr_Clear(); /* bytes that are no text, in a name */
        return 1;
    }
    if (is_marked || is_absolute)
        return is_marked;
    PyObject *inside = PyObject_GetAttrString(self->paths, "inside");
    int is_inside = inside == NULL ? -1 : PyObject_IsTrue(inside);
    Py_XDECREF(inside);
    return is_inside;
}

/* What the wrapper's ``_before`` returns: None, or (result,), or (args, kwargs) for the original. */
static PyObject *call_call(PyObject *object, PyObject *args, PyObject *kwargs)
{
    Call *self = (Call *)object;
    if (self->call == NULL || self->mark == NULL || self->paths == NULL)
        return PyErr_Format(PyExc_TypeError, "the wrapper was not initialised"), NULL;
    int ours = may_be_ours(self, args, kwargs);
    if (ours < 0)
        return NULL;
    if (!ours)
        return PyObject_Call(self->call, args, kwargs);
    PyObject *before = PyObject_GetAttrString(object, "_before");
    PyObject *named = kwargs != NULL ? kwargs : PyDict_New(), *result = NULL;
    Py_XINCREF(kwargs);
    PyObject *other = before && named ? PyObject_CallFunctionObjArgs(before, args, named, NULL) : NULL;
    Py_XDECREF(before);
    Py_XDECREF(named);
    if (other == Py_None)
        result = PyObject_Call(self->call, args, kwargs);
    else if (other != NULL && PyTuple_Check(other) && PyTuple_Size(other) == 1) {
        result = PyTuple_GetItem(other, 0);
        Py_XINCREF(result);
    } else if (other != NULL && PyTuple_Check(other) && PyTuple_Size(other) == 2
               && PyTuple_Check(PyTuple_GetItem(other, 0)) && PyDict_Check(PyTuple_GetItem(other, 1)))
        result = PyObject_Call(self->call, PyTuple_GetItem(other, 0), PyTuple_GetItem(other, 1));
    else if (other != NULL)
        PyErr_Format(PyExc_TypeError, "_before() returned something else than None, (result,) or (args, kwargs)");
    Py_XDECREF(other);
    return result;
}

static int call_traverse(PyObject *object, visitproc visit, void *arg)
{
    Call *self = (Call *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->call);
    Py_VISIT(self->parameter);
    Py_VISIT(self->mark);
    Py_VISIT(self->paths);
    return 0;
}

static int call_clear(PyObject *object)
{
    Call *self = (Call *)object;
    Py_CLEAR(self->call);
    Py_CLEAR(self->parameter);
    Py_CLEAR(self->mark);
    Py_CLEAR(self->paths);
    return 0;
}

static void call_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    PyObject_GC_UnTrack(object);
    call_clear(object);
    release(object);
    Py_DECREF(type);
}

static PyType_Slot call_slots[] = {
    {Py_tp_doc, "A function that first looks whether its first argument names something in the site tree."},
    {Py_tp_call, (void *)call_call},
    {Py_tp_members, call_members},
    {Py_tp_traverse, (void *)call_traverse},
    {Py_tp_clear, (void *)call_clear},
    {Py_tp_dealloc, (void *)call_dealloc},
    {0, NULL},
};

static PyType_Spec call_spec = {
    "cloudimport._native.Call", sizeof(Call), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    call_slots,
};

/* ---- the module ----------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"install", native_install, METH_VARARGS,
     "install(root, index, argv, env, timeout)\n--\n\nHook the process for the site tree at root (bytes), whose"
     " files' paths are in index.\n\nargv and env (lists of bytes) start the filler; timeout is in milliseconds."
     " Returns\nhow many slots the hooks are in. Raises OSError on an unknown C library."},
    {"uninstall", native_uninstall, METH_NOARGS,
     "uninstall()\n--\n\nMake the hooks pass everything through, and let the filler end."},
    {"scan", native_scan, METH_NOARGS,
     "scan()\n--\n\nHook what was loaded since the last time; returns how many slots the hooks are in."},
    {"touch", native_touch, METH_O,
     "touch(path)\n--\n\nLeave what is at a path (bytes, relative to the root) as this process has made it."},
    {"touched", native_touched, METH_NOARGS,
     "touched()\n--\n\nReturn paths that were touched since the last time."},
    {"counts", native_counts, METH_NOARGS,
     "counts()\n--\n\nReturn (files filled, requests made, bytes fetched) by fillers of this process."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "Files of the site tree appear for C code too.", -1, methods, NULL, NULL,
    NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void)
{
    PyObject *module = PyModule_Create(&definition);
    PyObject *type = module == NULL ? NULL : PyType_FromSpec(&call_spec);
    if (type == NULL || PyModule_AddObject(module, "Call", type)) {
        Py_XDECREF(type);
        Py_XDECREF(module);
        return NULL;
    }
    return module;
}
