/* The checksums of a completion record: CRC-32 (gzip's, or Castagnoli's) and the exclusive or of 16-bit words. */
#include "device.h"

static uint32_t tables[2][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_tables(void)
{
    static const uint32_t polynomials[2] = {0xedb88320, 0x82f63b78}; /* bit-reversed: RFC 1952, RFC 3720 */
    for (int which = 0; which < 2; which++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t rest = byte;
            for (int bit = 0; bit < 8; bit++) {
                rest = rest >> 1 ^ (rest & 1 ? polynomials[which] : 0);
            }
            tables[which][byte] = rest;
        }
    }
}

void add_to_checksum(struct checksum *sum, const uint8_t *data, uint32_t size, bool castagnoli)
{
    pthread_once(&once, make_tables);
    const uint32_t *table = tables[castagnoli];
    uint32_t crc = ~sum->crc;
    for (uint32_t i = 0; i < size; i++) {
        crc = crc >> 8 ^ table[(crc ^ data[i]) & 0xff];
        sum->xor16 ^= (uint16_t)(sum->odd ? data[i] << 8 : data[i]);
        sum->odd = !sum->odd;
    }
    sum->crc = ~crc;
}
