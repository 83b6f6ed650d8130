// apply_async with a callback for the result and one for the error.
// SPDX-License-Identifier: BSL-1.0
//
//     from multiprocessing import Pool
//
//     def divide(a, b):
//         if b == 0:
//             raise ValueError("cannot divide by zero")
//         return a // b
//
//     if __name__ == "__main__":
//         quotients, complaints = [], []
//         with Pool(2) as pool:
//             for b in [5, 4, 3, 2, 1, 0]:
//                 pool.apply_async(divide, (60, b), callback=quotients.append,
//                                  error_callback=lambda e: complaints.append(str(e)))
//             pool.close()
//             pool.join()                     # after it, every callback has run
//         print("quotients:", *sorted(quotients))
//         print("complaints:", *complaints)
#include <multiprocessing.hpp>

#include <exception>
#include <iostream>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace mp = multiprocessing;

int divide(int a, int b) {
    if (b == 0) throw std::domain_error("cannot divide by zero");
    return a / b;
}

int main() {
    std::mutex mutex;  // callbacks run on a thread of the pool
    std::set<int> quotients;
    std::vector<std::string> complaints;

    const auto on_result = [&](int quotient) {
        std::lock_guard guard(mutex);
        quotients.insert(quotient);
    };
    const auto on_error = [&](std::exception_ptr error) {
        std::lock_guard guard(mutex);
        try {
            std::rethrow_exception(error);
        } catch (const std::domain_error& e) {
            complaints.push_back(e.what());
        }
    };

    mp::Pool pool(2);
    for (int b : {5, 4, 3, 2, 1, 0}) pool.apply_async(divide, 60, b).then(on_result, on_error);
    pool.close();
    pool.join();  // after it, every callback has run

    std::cout << "quotients:";
    for (int quotient : quotients) std::cout << ' ' << quotient;
    std::cout << "\ncomplaints:";
    for (const std::string& complaint : complaints) std::cout << ' ' << complaint;
    std::cout << '\n';
}
