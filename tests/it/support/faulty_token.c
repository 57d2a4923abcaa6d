/* SoftHSM with faults a real token can have, built and used by tests/it/support/softhsm.rs.
 *
 * Every call goes to SoftHSM; these come back otherwise when a file of that name is in $FAULTS:
 *   fault    holds a number: C_Sign fails with it, once
 *   garbage  C_Sign gives something that is no signature
 *   hang     a FIFO: C_Sign waits until somebody opened it for writing
 *   flags    holds a number: more flags of the token
 *   hidden   private keys do not show their public exponent
 * The file `calls` gets a line for each call that tests count.
 */

#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long number;

/* CK_FUNCTION_LIST: a version, then the functions in the order of the standard. */
struct functions {
    unsigned char version[2];
    void *at[68];
};
enum { INITIALIZE = 0, FINALIZE = 1, GET_TOKEN_INFO = 6, LOGIN = 18, GET_ATTRIBUTE_VALUE = 24, SIGN = 43 };
/* Where the flags are in CK_TOKEN_INFO. */
enum { FLAGS = 96 };

struct attribute {
    number type;
    void *value;
    number length;
};
enum { CLASS = 0, PUBLIC_EXPONENT = 0x122, PRIVATE_KEY = 3, ATTRIBUTE_TYPE_INVALID = 0x12 };

static struct functions ours, *real;

static const char *path(const char *name)
{
    static _Thread_local char buffer[4096];
    snprintf(buffer, sizeof buffer, "%s/%s", getenv("FAULTS"), name);
    return buffer;
}

static number read_number(const char *name)
{
    number value = 0;
    FILE *file = fopen(path(name), "r");
    if (file) {
        if (fscanf(file, "%lu", &value) != 1)
            value = 0;
        fclose(file);
    }
    return value;
}

static void note(const char *call)
{
    int file = open(path("calls"), O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file >= 0) {
        if (write(file, call, strlen(call)) < 0)
            abort();
        close(file);
    }
}

static number initialize(void *arguments)
{
    note("C_Initialize\n");
    return ((number (*)(void *))real->at[INITIALIZE])(arguments);
}

static number finalize(void *reserved)
{
    note("C_Finalize\n");
    return ((number (*)(void *))real->at[FINALIZE])(reserved);
}

static number get_token_info(number slot, unsigned char *info)
{
    number result = ((number (*)(number, unsigned char *))real->at[GET_TOKEN_INFO])(slot, info);
    *(number *)(info + FLAGS) |= read_number("flags");
    return result;
}

static number login(number session, number user, unsigned char *pin, number length)
{
    note("C_Login\n");
    return ((number (*)(number, number, unsigned char *, number))real->at[LOGIN])(session, user, pin, length);
}

static number get_attribute_value(number session, number object, struct attribute *wanted, number count)
{
    number (*get)(number, number, struct attribute *, number) = real->at[GET_ATTRIBUTE_VALUE];
    number class = 0;
    struct attribute of_class = {CLASS, &class, sizeof class};
    if (count == 1 && wanted->type == PUBLIC_EXPONENT && access(path("hidden"), F_OK) == 0 &&
        get(session, object, &of_class, 1) == 0 && class == PRIVATE_KEY) {
        wanted->length = (number)-1;
        return ATTRIBUTE_TYPE_INVALID;
    }
    return get(session, object, wanted, count);
}

static number sign(number session, unsigned char *data, number length, unsigned char *signature, number *size)
{
    number fault = 0, result;
    if (signature) {
        note("C_Sign\n");
        int gate = open(path("hang"), O_RDONLY);
        if (gate >= 0)
            close(gate);
        fault = read_number("fault");
        if (fault && unlink(path("fault")) == 0)
            return fault;
    }
    result = ((number (*)(number, unsigned char *, number, unsigned char *, number *))real->at[SIGN])(
        session, data, length, signature, size);
    if (signature && access(path("garbage"), F_OK) == 0)
        signature[*size - 1] ^= 1;
    return result;
}

number C_GetFunctionList(struct functions **list)
{
    void *library = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW | RTLD_LOCAL);
    number (*their_list)(struct functions **) = dlsym(library, "C_GetFunctionList");
    number result = their_list(&real);
    ours = *real;
    ours.at[INITIALIZE] = initialize;
    ours.at[FINALIZE] = finalize;
    ours.at[GET_TOKEN_INFO] = get_token_info;
    ours.at[LOGIN] = login;
    ours.at[GET_ATTRIBUTE_VALUE] = get_attribute_value;
    ours.at[SIGN] = sign;
    *list = &ours;
    return result;
}
