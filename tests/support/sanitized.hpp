// SPDX-License-Identifier: BSL-1.0
//
// Whether this is compiled for AddressSanitizer and UndefinedBehaviorSanitizer: TEST_IS_SANITIZED.
#pragma once

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TEST_IS_SANITIZED
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define TEST_IS_SANITIZED
#endif
