#define APP_NAME "app"
#define BACKEND "backend_plain.h"
#define USE_FAST 0
