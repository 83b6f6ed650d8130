// SPDX-License-Identifier: BSL-1.0
#pragma once

struct Base {
    virtual void run() const = 0;
    virtual void stop() = 0;
};

struct Derived : Base {
    inline void stop() override;
    void run() const override;
};
