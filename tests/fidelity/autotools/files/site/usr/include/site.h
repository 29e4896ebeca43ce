/* Included by everything that is compiled for this site. */
#ifndef SITE_H
#define SITE_H
#define SITE_NAME "here"
#define SITE_LIMIT 16
#endif
