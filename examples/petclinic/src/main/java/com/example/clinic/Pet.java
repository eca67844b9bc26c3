package com.example.clinic;

import jakarta.persistence.Entity;
import jakarta.persistence.Id;

@Entity
public class Pet {
    @Id private Integer id;
    private String name;
    private String owner;

    public String getName() {
        return name;
    }

    public String getOwner() {
        return owner;
    }
}
