/* What libraries do with files, each in a way of its own: a digit says which. Built by the tests. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int from_descriptor(int fd, char *out)
{
    if (fd < 0)
        return -errno;
    int got = (int)read(fd, out, 5);
    close(fd);
    return got;
}

static int from_stream(FILE *file, char *out)
{
    if (file == NULL)
        return -errno;
    int got = (int)fread(out, 1, 5, file);
    fclose(file);
    return got;
}

static int parent_of(const char *path, const char **name)
{
    static _Thread_local char folder[PATH_MAX];
    *name = strrchr(path, '/') + 1;
    snprintf(folder, sizeof folder, "%.*s", (int)(*name - path), path);
    return open(folder, O_RDONLY | O_DIRECTORY);
}

/* Put up to 5 bytes of the file, its size or names into out; returns how many bytes, or -errno. */
int c_read(int way, const char *path, char *out)
{
    struct stat status;
    struct statx more;
    const char *name;
    char resolved[PATH_MAX];
    int folder, result;
    switch (way) {
    case 0: return from_descriptor(open(path, O_RDONLY), out);
    case 1: return from_descriptor(open64(path, O_RDONLY | O_CLOEXEC), out);
    case 2: return from_stream(fopen(path, "rb"), out);
    case 3: return from_stream(fopen64(path, "r+"), out);
    case 4:
        folder = parent_of(path, &name);
        result = from_descriptor(openat(folder, name, O_RDONLY), out);
        close(folder);
        return result;
    case 5: return stat(path, &status) ? -errno : sprintf(out, "%d", (int)status.st_size);
    case 6: return lstat(path, &status) ? -errno : sprintf(out, "%d", (int)status.st_size);
    case 7:
        folder = parent_of(path, &name);
        result = fstatat(folder, name, &status, 0) ? -errno : sprintf(out, "%d", (int)status.st_size);
        close(folder);
        return result;
    case 8: return statx(AT_FDCWD, path, 0, STATX_SIZE, &more) ? -errno : sprintf(out, "%d", (int)more.stx_size);
    case 9: return access(path, R_OK) ? -errno : sprintf(out, "yes");
    case 10: return faccessat(AT_FDCWD, path, R_OK, 0) ? -errno : sprintf(out, "yes");
    case 11: return realpath(path, resolved) ? sprintf(out, "%s", strrchr(resolved, '/')) : -errno;
    case 12: return from_descriptor(open(path, O_RDWR | O_CREAT, 0644), out); /* as sqlite opens */
    case 13: return from_stream(fopen(path, "a+"), out) < 0 ? -errno : from_stream(fopen(path, "r"), out);
    case 14: return from_descriptor(open(path, O_WRONLY | O_CREAT | O_EXCL, 0644), out);
    case 15: return from_stream(freopen(path, "rb", fopen("/dev/null", "rb")), out);
    case 16: return readlink(path, resolved, sizeof resolved) < 0 ? -errno : sprintf(out, "a link");
    case 17: return truncate(path, 3) || stat(path, &status) ? -errno : sprintf(out, "%d", (int)status.st_size);
    case 18: return unlink(path) || access(path, F_OK) == 0 ? -errno : sprintf(out, "gone");
    case 19: return remove(path) || access(path, F_OK) == 0 ? -errno : sprintf(out, "gone");
    case 20:
        sprintf(resolved, "%s.new", path);
        return rename(path, resolved) ? -errno : from_descriptor(open(resolved, O_RDONLY), out);
    case 21: {
        char *found = canonicalize_file_name(path);
        result = found ? sprintf(out, "%s", strrchr(found, '/')) : -errno;
        free(found);
        return result;
    }
    case 22:
        result = creat(path, 0644);
        return result < 0 || close(result) || stat(path, &status) ? -errno : sprintf(out, "%d", (int)status.st_size);
    case 23: return mkdir(path, 0755) ? -errno : sprintf(out, "made");
    case 24: return rmdir(path) ? -errno : sprintf(out, "gone");
    case 25: return symlink("nowhere", path) ? -errno : sprintf(out, "made");
    case 26: return chmod(path, 0600) ? -errno : sprintf(out, "changed");
    case 27:
        folder = parent_of(path, &name);
        result = mkdirat(folder, name, 0755) ? -errno : sprintf(out, "made");
        close(folder);
        return result;
    case 28: {
        FILE *made = freopen(path, "w", fopen("/dev/null", "r"));
        if (made == NULL)
            return -errno;
        fputs("new", made);
        fclose(made);
        return from_descriptor(open(path, O_RDONLY), out);
    }
    case 29: {
        FILE *kept = fopen("/dev/null", "r"), *opened = freopen(path, "rb", kept);
        result = opened ? 0 : -errno;
        fclose(opened ? opened : kept);
        return result;
    }
    }
    return -EINVAL;
}

static int count_entries(DIR *folder)
{
    int count = 0;
    if (folder == NULL)
        return -errno;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(folder);
    return count;
}

static int walked;

static int walk(const char *path, const struct stat *status, int kind, struct FTW *at)
{
    (void)path, (void)at;
    walked += kind == FTW_F && S_ISREG(status->st_mode);
    return 0;
}

/* How many files a folder has, counted in one of several ways, or -errno. */
int c_count(int way, const char *path)
{
    struct dirent **names;
    char pattern[PATH_MAX];
    glob_t found;
    int count;
    switch (way) {
    case 0: return count_entries(opendir(path));
    case 1: return count_entries(fdopendir(open(path, O_RDONLY | O_DIRECTORY)));
    case 2: return (count = scandir(path, &names, NULL, alphasort)) < 0 ? -errno : count - 2;
    case 3:
        walked = 0;
        return nftw(path, walk, 8, FTW_PHYS) < 0 ? -errno : walked;
    case 4:
        snprintf(pattern, sizeof pattern, "%s/f*", path);
        count = glob(pattern, 0, NULL, &found) ? -ENOENT : (int)found.gl_pathc;
        globfree(&found);
        return count;
    }
    return -EINVAL;
}

typedef struct {
    const char *path;
    char *out;
    int got;
} Job;

static void *work(void *argument)
{
    Job *job = argument;
    job->got = c_read(0, job->path, job->out);
    return NULL;
}

/* The same in a thread that Python knows nothing of, while the caller waits with whatever it holds. */
int c_thread(const char *path, char *out)
{
    pthread_t thread;
    Job job = {path, out, -EINVAL};
    pthread_create(&thread, NULL, work, &job);
    pthread_join(thread, NULL);
    return job.got;
}

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The same with a lock of the library's own. */
int c_locked(const char *path, char *out)
{
    pthread_mutex_lock(&lock);
    int got = c_read(0, path, out);
    pthread_mutex_unlock(&lock);
    return got;
}

static void *fail(void *argument)
{
    *(int *)argument = open("/nonexistent/file", O_RDONLY) < 0 ? errno : 0;
    return NULL;
}

/* What a thread with the smallest stack gets for a file that is nowhere. */
int c_small_stack(void)
{
    pthread_t thread;
    pthread_attr_t attributes;
    int got = 0;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, PTHREAD_STACK_MIN);
    pthread_create(&thread, &attributes, fail, &got);
    pthread_join(thread, NULL);
    return got;
}

/* Whether a library is found that lies beside this one: by the search path of whoever calls. */
int c_beside(const char *name)
{
    return dlopen(name, RTLD_NOW) != NULL;
}
